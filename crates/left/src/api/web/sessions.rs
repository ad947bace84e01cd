//! Who may use the page: one-time links, and the browsers that came by one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use crate::home::UserError;

/// How long a link may wait to be opened.
const LINK_LIFE: Duration = Duration::from_secs(600);
/// How long a browser may stay without a new link; also told to it.
pub(super) const SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Links that wait and browsers that may enter; the oldest gives way.
const MAX_LINKS: usize = 16;
const MAX_SESSIONS: usize = 64;

/// Only hashes are kept, so that how long a comparison takes says nothing of the secret.
type Hash = [u8; 32];

#[derive(Default)]
pub(super) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    links: VecDeque<(Hash, Instant)>,
    browsers: VecDeque<(Hash, Instant)>,
}

impl Sessions {
    /// The secret of a new link.
    pub(super) fn link(&self) -> Result<String, UserError> {
        let secret = secret()?;
        let links = &mut self.lock().links;
        links.truncate(MAX_LINKS - 1);
        links.push_front((hash(&secret), Instant::now()));
        Ok(secret)
    }

    /// The secret for a browser that came by a link, which is used up with that; `None`: the link
    /// is unknown, used or too old.
    pub(super) fn enter(&self, link: &str) -> Result<Option<String>, UserError> {
        let wanted = hash(link);
        let mut inner = self.lock();
        let Some(at) = inner.links.iter().position(|(hash, _)| *hash == wanted) else {
            return Ok(None);
        };
        let fresh = inner.links.remove(at);
        if fresh.is_none_or(|(_, made)| made.elapsed() > LINK_LIFE) {
            return Ok(None);
        }
        let secret = secret()?;
        inner.browsers.truncate(MAX_SESSIONS - 1);
        inner.browsers.push_front((hash(&secret), Instant::now()));
        Ok(Some(secret))
    }

    /// Whether a browser has entered with this secret.
    pub(super) fn knows(&self, secret: &str) -> bool {
        let wanted = hash(secret);
        let inner = self.lock();
        let found = inner.browsers.iter().find(|(hash, _)| *hash == wanted);
        found.is_some_and(|(_, since)| since.elapsed() <= SESSION_LIFE)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(secret: &str) -> Hash {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

fn secret() -> Result<String, UserError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        UserError::new(
            "cannot make a link",
            "the system gives no random numbers",
            "try again",
        )
    })?;
    Ok(HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_and_its_secret_is_not_the_browsers() {
        let sessions = Sessions::default();
        let link = sessions.link().unwrap();
        assert!(!sessions.knows(&link));
        let browser = sessions.enter(&link).unwrap().unwrap();
        assert!(sessions.knows(&browser) && browser != link);
        assert_eq!(sessions.enter(&link).unwrap(), None);
        assert_eq!(sessions.enter("").unwrap(), None);
        assert!(!sessions.knows("") && !sessions.knows(&link));
    }

    #[test]
    fn old_links_and_browsers_give_way() {
        let sessions = Sessions::default();
        let first = sessions.link().unwrap();
        let browsers: Vec<_> = (0..MAX_SESSIONS + 1)
            .map(|_| {
                let link = sessions.link().unwrap();
                sessions.enter(&link).unwrap().unwrap()
            })
            .collect();
        assert!(!sessions.knows(&browsers[0]));
        assert!(browsers[1..].iter().all(|b| sessions.knows(b)));
        for _ in 0..MAX_LINKS {
            sessions.link().unwrap();
        }
        assert_eq!(sessions.enter(&first).unwrap(), None);
    }
}
