//! A share's folder: may it be one, is it one, which one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use left_core::message::ShareId;
use serde::{Deserialize, Serialize};

use super::error::UserError;
use super::record::bad_toml;
use super::{files, text};

/// The folder inside a share that is left's own and is never synchronised.
pub const MARKER_DIR: &str = ".left";
const MARKER: &str = "share.toml";
/// How many folders are looked into for a share inside a folder that is to become one.
const MAX_LOOK: usize = 50_000;

/// `<share>/.left/share.toml`: makes a folder a share, and tells it from an empty mount point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Which share.
    #[serde(with = "text")]
    pub id: ShareId,
    /// Where this device founded the share: what the id was made of, beside the device's key.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub nonce: Option<[u8; 32]>,
    /// When it was made here, RFC 3339.
    #[serde(default)]
    pub created: String,
}

/// Makes `dir` the share `id`, unless it is one already; returns its marker and whether it is
/// new. A folder that is another share is given back as it is: compare the ids. `nonce` is kept
/// where this device founds the share.
pub fn init_share(
    dir: &Path,
    id: ShareId,
    nonce: Option<[u8; 32]>,
) -> Result<(Marker, bool), UserError> {
    if let Some(marker) = load_marker(dir)? {
        return Ok((marker, false));
    }
    refuse_inner_share(dir)?;
    let what = "cannot make a share of";
    let own = dir.join(MARKER_DIR);
    match fs::create_dir(&own) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(UserError::io(what, dir, &e));
        }
        _ => {}
    }
    let marker = Marker {
        id,
        nonce,
        created: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
    };
    let text = toml::to_string(&marker)
        .map_err(|e| UserError::new(what, e, "please report it: it is a bug"))?;
    let path = own.join(MARKER);
    files::write_atomic(&path, text.as_bytes(), 0o644)
        .and_then(|()| files::sync_parent(&own))
        .map_err(|e| UserError::io(what, dir, &e))?;
    Ok((marker, true))
}

/// The marker of a folder that must be a share.
pub fn read_share(dir: &Path) -> Result<Marker, UserError> {
    match load_marker(dir)? {
        Some(marker) => Ok(marker),
        None if !dir.exists() => Err(UserError::new(
            format!("{} is not a share", clean(dir)),
            "it does not exist",
            "check the path",
        )),
        None => Err(UserError::new(
            format!("{} is not a share", clean(dir)),
            "it has no .left/share.toml",
            format!("run `left share {}` to make it one", clean(dir)),
        )),
    }
}

/// The share that `dir` lies in, if any (`dir` itself does not count).
pub fn enclosing_share(dir: &Path) -> Option<PathBuf> {
    dir.ancestors()
        .skip(1)
        .find(|above| above.join(MARKER_DIR).join(MARKER).exists())
        .map(Path::to_path_buf)
}

/// A path for people: control characters and bytes that are not UTF-8 escaped.
pub fn clean(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for b in chunk.invalid() {
            text.push_str(&format!("\\x{b:02x}"));
        }
    }
    text
}

/// Makes `dir` when it is missing, checks that it is a folder to work in, and spells it one way.
pub(super) fn prepare(dir: &Path) -> Result<PathBuf, UserError> {
    let what = "cannot share";
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(UserError::new(
                format!("{what} {}", clean(dir)),
                "the folder above it does not exist",
                "check the path, or make that folder first",
            ));
        }
        // `.`, `/` and folders on read-only disks exist although they cannot be made.
        Err(e) => {
            if !dir.is_dir() {
                return Err(UserError::io(what, dir, &e));
            }
        }
    }
    let canonical = dir
        .canonicalize()
        .map_err(|e| UserError::io(what, dir, &e))?;
    if !canonical.is_dir() {
        return Err(UserError::new(
            format!("{what} {}", clean(dir)),
            "it is not a folder",
            "choose a folder",
        ));
    }
    if canonical.parent().is_none() || canonical.components().any(|c| c.as_os_str() == MARKER_DIR) {
        return Err(UserError::new(
            format!("{what} {}", clean(dir)),
            "it is the root of the disk or left's own folder",
            "choose another folder",
        ));
    }
    // Reading the folder shows at once whether it can be read.
    fs::read_dir(&canonical).map_err(|e| UserError::io(what, dir, &e))?;
    if let Some(outer) = enclosing_share(&canonical) {
        return Err(UserError::new(
            format!("{what} {}", clean(dir)),
            format!("it is inside the share {}", clean(&outer)),
            "choose a folder outside of it; it is synchronised with that share already",
        ));
    }
    Ok(canonical)
}

fn load_marker(dir: &Path) -> Result<Option<Marker>, UserError> {
    let what = "cannot read the share's marker";
    let path = dir.join(MARKER_DIR).join(MARKER);
    let bytes = match files::read(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::NotADirectory => return Ok(None),
        Err(e) => return Err(UserError::io(what, &path, &e)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let marker = toml::from_str(&text).map_err(|e| {
        let todo = "restore the file, or delete the folder .left and join the share anew";
        bad_toml(what, &path, &text, &e, todo)
    })?;
    Ok(Some(marker))
}

/// A share inside a share would be synchronised twice. Looked for once, when a folder becomes
/// one; in a very large tree only so far.
fn refuse_inner_share(dir: &Path) -> Result<(), UserError> {
    let mut todo = vec![dir.to_path_buf()];
    let mut looked = 0;
    while let Some(at) = todo.pop() {
        looked += 1;
        if looked > MAX_LOOK {
            return Ok(());
        }
        // What cannot be read is reported when it is synchronised.
        let Ok(entries) = fs::read_dir(&at) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name() != MARKER_DIR {
                todo.push(entry.path());
            } else if at != dir && entry.path().join(MARKER).exists() {
                return Err(UserError::new(
                    format!("cannot share {}", clean(dir)),
                    format!("it contains the share {}", clean(&at)),
                    "choose another folder, or leave that share first",
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: std::fmt::Debug>(result: Result<T, UserError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_share_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let (made, new) = init_share(dir.path(), ShareId([1; 32]), None).unwrap();
        assert!(new && made.id == ShareId([1; 32]));
        let (again, new) = init_share(dir.path(), ShareId([2; 32]), None).unwrap();
        assert!(!new && again == made);
        assert_eq!(read_share(dir.path()).unwrap(), made);
        assert!(made.created.ends_with('Z'), "{}", made.created);
    }

    #[test]
    fn a_missing_folder_is_made_but_not_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        let new = prepare(&dir.path().join("share")).unwrap();
        assert!(new.is_dir() && new.is_absolute());
        let e = error(prepare(&dir.path().join("a/b")));
        assert!(e.contains("the folder above it does not exist"), "{e}");
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(error(prepare(&file)).contains("not a folder"));
        assert!(error(prepare(&file.join("below"))).contains("not a folder"));
        assert!(prepare(Path::new("/")).is_err());
    }

    #[test]
    fn shares_do_not_nest() {
        let dir = tempfile::tempdir().unwrap();
        let outer = prepare(&dir.path().join("outer")).unwrap();
        let inner = outer.join("deep/inner");
        fs::create_dir_all(&inner).unwrap();
        init_share(&inner, ShareId([1; 32]), None).unwrap();
        assert!(error(init_share(&outer, ShareId([2; 32]), None)).contains("contains the share"));
        fs::remove_dir_all(inner.join(MARKER_DIR)).unwrap();
        init_share(&outer, ShareId([2; 32]), None).unwrap();
        assert!(error(prepare(&inner)).contains("inside the share"));
        // A share's own subfolder `.left` cannot become one either.
        assert!(prepare(&outer.join(MARKER_DIR)).is_err());
    }

    #[test]
    fn a_damaged_or_missing_marker_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(error(read_share(dir.path())).contains("left share"));
        assert!(error(read_share(&dir.path().join("no"))).contains("does not exist"));
        init_share(dir.path(), ShareId([1; 32]), None).unwrap();
        let marker = dir.path().join(MARKER_DIR).join(MARKER);
        fs::write(&marker, "id = \"short\"").unwrap();
        let e = error(read_share(dir.path()));
        assert!(e.contains("share.toml (line 1)"), "{e}");
    }

    #[test]
    fn paths_for_people_cannot_break_the_line() {
        use std::os::unix::ffi::OsStringExt;
        let path = PathBuf::from(std::ffi::OsString::from_vec(
            b"a\n\x1b\xff\xc3\xa4".to_vec(),
        ));
        assert_eq!(clean(&path), "a\\n\\u{1b}\\xff\u{e4}");
    }
}
