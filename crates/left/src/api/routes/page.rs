//! What the page needs and the command line does not: a link to it, pictures of tickets, folders of
//! this machine to choose from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::response::Response;
use etcetera::home_dir;
use qrcode::QrCode;
use qrcode::types::Color;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::call::{Api, Asked, Input, Refused, Shared, call};
use crate::daemon::handle::Reloaded;
use crate::home::{Config, HistoryConfig, Home, Rate, Setting, UserError, text};

/// Longest text that is drawn, in bytes; more cannot be read by a telephone any more.
const MAX_QR: usize = 2048;
/// Folders that are proposed, and names that are looked at for them.
const MAX_PROPOSED: usize = 50;
const MAX_LOOKED_AT: usize = 5000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(link))
        .routes(routes!(qr))
        .routes(routes!(folders))
        .routes(routes!(settings))
        .routes(routes!(change_settings))
}

/// Where the page is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PageLink {
    /// Opens it in a browser on this machine; works once, for ten minutes.
    pub url: String,
}

/// A link that opens the page.
#[utoipa::path(post, path = "/v1/web", tag = "device",
    responses((status = 200, body = PageLink), Refused))]
async fn link(State(api): Shared) -> Response {
    let link = match api.page.get() {
        Some(page) => page.link().map(|url| PageLink { url }),
        None => Err(UserError::new(
            "cannot open the page",
            "the left that runs has none: it was started with --no-web, or the port was taken",
            "see its log, or start it again without --no-web",
        )),
    };
    call(&api, move |_| link).await
}

/// A text to be drawn.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QrRequest {
    /// The text.
    pub text: String,
}

/// A QR code.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QrPicture {
    /// Squares of one side.
    pub side: usize,
    /// Row by row from the top left: `1` dark, `0` light.
    pub squares: String,
}

/// Draws a text (a ticket) as a QR code.
#[utoipa::path(post, path = "/v1/qr", tag = "device", request_body = QrRequest,
    responses((status = 200, body = QrPicture), Refused))]
async fn qr(State(api): Shared, Input(r): Input<QrRequest>) -> Response {
    call(&api, move |_| draw(&r.text)).await
}

fn draw(text: &str) -> Result<QrPicture, UserError> {
    let failed = |why: String| UserError::usage("cannot draw the text", why, "take a shorter one");
    if text.len() > MAX_QR {
        return Err(failed(format!("it has more than {MAX_QR} bytes")));
    }
    let code = QrCode::new(text).map_err(|e| failed(e.to_string()))?;
    let squares = code.to_colors().into_iter();
    Ok(QrPicture {
        side: code.width(),
        squares: squares
            .map(|c| if c == Color::Dark { '1' } else { '0' })
            .collect(),
    })
}

/// The beginning of a folder's path, as somebody types it.
#[derive(Debug, Clone, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FoldersRequest {
    /// Absolute, or with `~` for the home folder.
    pub typed: String,
}

/// What a typed path may mean.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Folders {
    /// The path itself, absolute; none when it cannot be one.
    #[serde(with = "text::option")]
    #[schema(value_type = Option<String>)]
    pub path: Option<PathBuf>,
    /// There is a folder at it.
    pub exists: bool,
    /// Folders whose paths begin so.
    #[serde(with = "text::list")]
    #[schema(value_type = Vec<String>)]
    pub proposed: Vec<PathBuf>,
}

/// Folders of this machine whose paths begin as typed.
#[utoipa::path(get, path = "/v1/folders", tag = "device", params(FoldersRequest),
    responses((status = 200, body = Folders), Refused))]
async fn folders(State(api): Shared, Asked(r): Asked<FoldersRequest>) -> Response {
    call(&api, move |_| Ok(propose(&r.typed))).await
}

fn propose(typed: &str) -> Folders {
    let typed = typed.trim();
    let path = match typed.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home_dir().ok().map(|h| match rest.trim_start_matches('/') {
                "" => h,
                rest => h.join(rest),
            })
        }
        _ => Some(PathBuf::from(typed)).filter(|p| p.is_absolute()),
    };
    let Some(path) = path else {
        return Folders {
            path: None,
            exists: false,
            proposed: Vec::new(),
        };
    };
    let whole = typed.ends_with('/') || typed == "~";
    let (within, start) = match (whole, path.parent(), path.file_name()) {
        (false, Some(parent), Some(name)) => (parent, name.to_string_lossy().into_owned()),
        _ => (path.as_path(), String::new()),
    };
    Folders {
        exists: path.is_dir(),
        proposed: below(within, &start),
        path: Some(path),
    }
}

fn below(dir: &Path, start: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).into_iter().flatten().take(MAX_LOOKED_AT);
    let mut found: Vec<PathBuf> = names
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hidden = name.starts_with('.') && !start.starts_with('.');
            !hidden && name.starts_with(start)
        })
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found.truncate(MAX_PROPOSED);
    found
}

/// How this device is set.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSettings {
    /// Folder of its key and settings.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub home: PathBuf,
    /// The file that holds what can be set.
    #[serde(with = "text")]
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// What that file sets as the device's name.
    pub name: Option<String>,
    /// What it sets as the address to listen on.
    pub listen: Option<String>,
    /// What it sets as addresses under which peers reach this device.
    pub advertise: Vec<String>,
    /// Whether members on the local network are looked for.
    pub discovery: bool,
    /// How many bytes a second all shares together may send and receive.
    pub rate: Rate,
    /// Hours with other rates, as they are written.
    pub schedule: Vec<String>,
    /// For how many days old versions are kept, percent of the disk they may take, most of one file
    /// (0: no limit).
    pub history: [u32; 3],
    /// What it sets as the page's port.
    pub web_port: Option<u16>,
    /// The home folder of this device's user, where new folders usually go.
    #[serde(with = "text::option")]
    #[schema(value_type = Option<String>)]
    pub user_home: Option<PathBuf>,
}

/// How this device is set, and where.
#[utoipa::path(get, path = "/v1/settings", tag = "device",
    responses((status = 200, body = DeviceSettings), Refused))]
async fn settings(State(api): Shared) -> Response {
    let home = api.home.clone();
    call(&api, move |_| Ok(told(&home, home.config()?))).await
}

fn told(home: &Home, config: Config) -> DeviceSettings {
    let HistoryConfig {
        days,
        max_percent,
        keep,
    } = config.history;
    DeviceSettings {
        home: home.path().to_path_buf(),
        file: home.path().join("config.toml"),
        name: config.name,
        listen: config.listen,
        advertise: config.advertise,
        discovery: config.discovery,
        rate: config.bandwidth.rate,
        schedule: config.bandwidth.schedule,
        history: [days, max_percent, keep],
        web_port: config.web_port,
        user_home: home_dir().ok(),
    }
}

/// Changes of settings.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SettingsRequest {
    /// Values by name: `name`, `discovery`, `bandwidth.up`, `bandwidth.down`, `bandwidth.schedule`,
    /// `history.days`, `history.max_percent`, `history.keep`; null: the default.
    #[schema(value_type = std::collections::HashMap<String, serde_json::Value>)]
    pub set: BTreeMap<String, Option<Setting>>,
}

/// Settings after a change.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangedSettings {
    /// How this device is set now.
    pub settings: DeviceSettings,
    /// What of it holds already, and what only when left is started anew.
    pub reloaded: Reloaded,
}

/// Changes settings in config.toml, all or none, and reads it anew; the rest of the file stays as it
/// is.
#[utoipa::path(post, path = "/v1/settings", tag = "device", request_body = SettingsRequest,
    responses((status = 200, body = ChangedSettings), Refused))]
async fn change_settings(State(api): Shared, Input(r): Input<SettingsRequest>) -> Response {
    let (home, own) = (api.home.clone(), api.clone());
    call(&api, move |_| {
        static ONE: Mutex<()> = Mutex::new(());
        // One at a time, or the later would undo the earlier.
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = told(&home, home.change_config(&r.set)?);
        let reloaded = match own.hooks.get() {
            Some(hooks) => (hooks.reload)()?,
            None => Reloaded::default(),
        };
        Ok(ChangedSettings { settings, reloaded })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_proposed_as_typed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["photos", "phone", "music", ".hidden"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("phrase.txt"), "").unwrap();
        let at = |rest: &str| format!("{}/{rest}", dir.path().display());
        let names = |typed: &str| {
            let proposed = propose(typed).proposed.into_iter();
            proposed
                .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&at("ph")), ["phone", "photos"]);
        assert_eq!(names(&at("")), ["music", "phone", "photos"]);
        assert_eq!(names(&at(".h")), [".hidden"]);
        assert!(propose(&at("photos")).exists && !propose(&at("none")).exists);
        for bad in ["", "photos", "../x", "~other"] {
            assert!(propose(bad).path.is_none(), "{bad}");
        }
    }

    #[test]
    fn a_qr_code_is_square_and_bounded() {
        let picture = draw("left1abc").unwrap();
        assert_eq!(picture.squares.len(), picture.side * picture.side);
        assert!(draw(&"x".repeat(MAX_QR + 1)).is_err());
        assert!(draw(&"x".repeat(MAX_QR)).is_ok());
    }
}
