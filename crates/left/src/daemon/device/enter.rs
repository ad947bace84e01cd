//! Folders become shares: made, joined by a ticket, left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;
use left_core::membership::Founding;
use left_core::message::{Role, ShareId};
use left_core::select::Selection;
use left_core::ticket::Ticket;

use super::super::choose::{self, Choosing};
use super::super::handle::{ShareInfo, TicketInfo, UserError};
use super::super::members::{Members, unix_now};
use super::super::snapshot::split_todo;
use super::{Device, failed};
use crate::home::{
    ChoiceRecord, MARKER_DIR, Marker, ShareRecord, TicketRecord, clean, init_share, lock_share,
    read_share,
};

/// How long `join` waits for the inviter's first answer.
const JOIN_WAIT: Duration = Duration::from_secs(15);

/// What a folder that is no share yet becomes.
#[derive(Clone, Copy)]
pub(super) enum Adopt {
    /// A new share of this device's own.
    Found,
    /// A part of this one.
    Join(ShareId, Option<Founding>),
}

impl Device {
    /// The record of the share in `dir`, made where there is none.
    pub(super) fn adopt(&self, dir: &Path, how: Adopt) -> Result<(ShareRecord, bool), UserError> {
        let known = self.home.shares()?.into_iter().find(|r| r.path == dir);
        if let Some(record) = known {
            // A folder whose marker is gone was emptied, or its disk is not mounted: never start
            // it anew under the same members.
            let marker = read_share(dir).map_err(|_| {
                UserError::new(
                    format!("{} was a share, but its folder .left is gone", clean(dir)),
                    "the folder was emptied or replaced, or its disk is not mounted",
                    format!("mount the disk or put the folder back; to begin anew run `left leave {}` first", clean(dir)),
                )
            })?;
            if marker.id != record.id {
                return Err(UserError::new(
                    format!("{} is another share now", clean(dir)),
                    "its marker names another share than this device knows for it",
                    format!(
                        "run `left leave {}` first, then share or join it anew",
                        clean(dir)
                    ),
                ));
            }
            return Ok((record, false));
        }
        let (id, founding) = match how {
            Adopt::Join(id, founding) => (id, founding),
            Adopt::Found => {
                let founding = self.new_founding()?;
                (founding.share(), Some(founding))
            }
        };
        let nonce = founding.map(|f| f.nonce);
        let (marker, new) = init_share(dir, id, nonce)?;
        let mut record = ShareRecord::new(marker.id, dir.to_path_buf());
        record.founding = founding.filter(|f| f.share() == marker.id);
        if let Some(other) = self.home.share(marker.id)? {
            if other.path.exists() {
                return Err(UserError::new(
                    format!("cannot share {}", clean(dir)),
                    format!("it is a copy of the share in {}", clean(&other.path)),
                    format!("remove {}/{MARKER_DIR} from the copy first", clean(dir)),
                ));
            }
            // The folder was moved: the same share in its new place.
            let record = ShareRecord {
                path: dir.to_path_buf(),
                ..other
            };
            self.home.save_share(&record)?;
            return Ok((record, false));
        }
        if let (false, Adopt::Found) = (new, how) {
            record.founding = Some(self.founded_before(dir, &marker)?);
        }
        self.home.save_share(&record)?;
        Ok((record, new))
    }

    /// How this device founded the share whose marker a folder has, though there is no record of
    /// it any more.
    fn founded_before(&self, dir: &Path, marker: &Marker) -> Result<Founding, UserError> {
        let founder = self.door.device;
        let founding = marker.nonce.map(|nonce| Founding { founder, nonce });
        if let Some(founding) = founding.filter(|f| f.share() == marker.id) {
            return Ok(founding);
        }
        // Another process' folder is told as that.
        drop(lock_share(dir)?);
        Err(UserError::new(
            format!("cannot share {}", clean(dir)),
            "it belongs to a share of which this device is no member",
            format!(
                "join that share with a ticket; to begin anew remove {}/{MARKER_DIR} first",
                clean(dir)
            ),
        ))
    }

    fn new_founding(&self) -> Result<Founding, UserError> {
        let mut nonce = [0; 32];
        aws_lc_rs::rand::fill(&mut nonce)
            .map_err(|_| failed("cannot make a share", "no random numbers"))?;
        Ok(Founding {
            founder: self.door.device,
            nonce,
        })
    }

    pub(super) fn make_ticket(
        &self,
        members: &Members,
        role: Role,
        expires: Duration,
    ) -> Result<TicketInfo, UserError> {
        let what = "cannot make a ticket";
        if !members.may_admit_soon() {
            return Err(UserError::new(
                what,
                "this device is no read-write member of the share (yet)",
                "ask a member that may write",
            ));
        }
        let (mut id, mut secret) = ([0; 16], [0; 16]);
        aws_lc_rs::rand::fill(&mut id)
            .and_then(|()| aws_lc_rs::rand::fill(&mut secret))
            .map_err(|_| failed(what, "no random numbers"))?;
        let ticket = Ticket {
            share: members.id(),
            inviter: self.door.device,
            id,
            secret,
            role,
            expires: unix_now().saturating_add(expires.as_secs()),
            addresses: self.door.introduction().addresses,
        };
        members.add_ticket(TicketRecord {
            id,
            secret,
            role,
            expires: ticket.expires,
            knew: Vec::new(),
            used_by: None,
        })?;
        let text = ticket.to_string();
        Ok(TicketInfo {
            join_line: format!("left join {text}"),
            ticket: text,
            share: members.record().path.clone(),
            role,
            expires: ticket.expires,
        })
    }

    pub(super) fn enter(
        &self,
        ticket: &str,
        dir: &Path,
        only: &[PathBuf],
    ) -> Result<ShareInfo, UserError> {
        let what = "cannot join";
        let choice = chosen_from_the_start(only)?;
        let parsed = Ticket::parse(ticket).map_err(|e| {
            let text = e.to_string();
            let (why, todo) = split_todo(&text);
            UserError::usage("cannot read the ticket", why, todo)
        })?;
        if parsed.inviter == self.door.device {
            return Err(UserError::new(
                what,
                "this device made the ticket itself",
                "use it on another device",
            ));
        }
        if parsed.expires <= unix_now() {
            return Err(UserError::new(
                what,
                "the ticket has expired",
                "ask for another one",
            ));
        }
        let dir = self.home.prepare_folder(dir)?;
        let had_marker = read_share(&dir).is_ok();
        let had_record = self.home.share(parsed.share)?.is_some();
        let (record, new) = self.adopt(&dir, Adopt::Join(parsed.share, None))?;
        if record.id != parsed.share {
            return Err(UserError::new(
                format!("{what} with {}", clean(&dir)),
                "it is another share already",
                "choose another folder, or `left leave` that one first",
            ));
        }
        // One that runs is not a member any more, or it is joined a second time.
        let members = match self.record_of(&dir) {
            Ok(members) => members,
            Err(_) => self.members_of(record),
        };
        let is_member = members.role_of(self.door.device).is_some();
        if is_member && !only.is_empty() {
            return Err(UserError::new(
                what,
                format!("{} is a part of the share already", clean(&dir)),
                format!("run `left choose {}` to change what it holds", clean(&dir)),
            ));
        }
        if !is_member {
            self.stop_share(parsed.share);
            members.invite(&parsed, ticket.trim())?;
            if !only.is_empty() {
                members.update(|r| r.choice = choice)?;
            }
        }
        let record = members.record();
        let (tx, rx) = bounded(1);
        self.run(members.clone(), Some(tx), true)?;
        if let Ok(Err(why)) = rx.recv_timeout(JOIN_WAIT) {
            if had_record {
                members.update(|r| r.invitation = None)?;
            } else {
                self.stop_share(record.id);
                self.home.forget_share(record.id)?;
            }
            if new && !had_marker {
                remove_marker(&dir)?;
            }
            return Err(UserError::new(
                what,
                why,
                "ask the inviter for another ticket",
            ));
        }
        Ok(self.info(&record, new))
    }
}

/// The choice of a device that is to hold these and nothing else; none where nothing is named.
fn chosen_from_the_start(only: &[PathBuf]) -> Result<Option<ChoiceRecord>, UserError> {
    if only.is_empty() {
        return Ok(None);
    }
    let paths = choose::paths("cannot choose", only)?;
    let selection = choose::changed(&Selection::nothing(), Choosing::Only, &paths)?;
    ChoiceRecord::new(&selection)
}

/// Removes what left keeps in a share's folder. Old versions in history are the user's bytes and
/// stay.
pub(super) fn remove_marker(dir: &Path) -> Result<(), UserError> {
    let own = dir.join(MARKER_DIR);
    let what = "cannot remove";
    let entries = std::fs::read_dir(&own).map_err(|e| UserError::io(what, &own, &e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        let removed = match (entry.file_name() == "history", is_dir) {
            // Only when it is empty.
            (true, _) => std::fs::remove_dir(&path).or(Ok(())),
            (false, true) => std::fs::remove_dir_all(&path),
            (false, false) => std::fs::remove_file(&path),
        };
        removed.map_err(|e| UserError::io(what, &path, &e))?;
    }
    // Stays while it holds history.
    let _ = std::fs::remove_dir(&own);
    Ok(())
}
