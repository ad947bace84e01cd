//! A real browser without a window, driven by clicks and keys: Chromium through its driver, by the
//! few requests of the WebDriver standard (<https://www.w3.org/TR/webdriver2/>) that are needed.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// Only a failure takes so long.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What to do where a part of it is not there.
const MISSING: &str = "tests of the page need a browser and its driver: \
    install the Debian packages chromium and chromium-driver (or like ones)";

/// The name under which the standard hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Driver,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Self {
        Self::with(None)
    }

    /// As wide and high as a telephone.
    pub fn phone() -> Self {
        let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 1.0, "touch": true });
        Self::with(Some(json!({ "deviceMetrics": metrics })))
    }

    fn with(emulated: Option<Value>) -> Self {
        let driver = Driver::start();
        let profile = tempfile::tempdir().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        let mut options = json!({ "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            data,
        ] });
        if let Some(emulated) = emulated {
            options["mobileEmulation"] = emulated;
        }
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = driver.ask(Method::POST, "/session", &wanted);
        let made = made.unwrap_or_else(|e| panic!("no browser starts: {e}; {MISSING}"));
        let id = made["sessionId"].as_str().unwrap();
        Self {
            session: format!("/session/{id}"),
            driver,
            _profile: profile,
        }
    }

    fn post(&self, what: &str, body: &Value) -> Result<Value, String> {
        let path = format!("{}{what}", self.session);
        self.driver.ask(Method::POST, &path, body)
    }

    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).unwrap();
    }

    /// Waits for an element; its id.
    pub fn find(&self, css: &str) -> String {
        self.again(&format!("find `{css}`"), || self.element(css))
    }

    fn element(&self, css: &str) -> Result<String, String> {
        let wanted = json!({ "using": "css selector", "value": css });
        let found = self.post("/element", &wanted)?;
        Ok(found[ELEMENT].as_str().unwrap().to_owned())
    }

    /// Presses what is there, as soon as it can be pressed: a page that lives draws itself anew.
    pub fn click(&self, css: &str) {
        self.again(&format!("press `{css}`"), || {
            let id = self.element(css)?;
            self.post(&format!("/element/{id}/click"), &json!({}))
        });
    }

    /// Types into what is there, as soon as it takes keys.
    pub fn keys(&self, css: &str, text: &str) {
        self.again(&format!("type into `{css}`"), || {
            let id = self.element(css)?;
            self.post(&format!("/element/{id}/value"), &json!({ "text": text }))
        });
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str) -> Value {
        let script = json!({ "script": format!("return {expression}"), "args": [] });
        let value = self.post("/execute/sync", &script);
        value.unwrap_or_else(|e| panic!("`{expression}`: {e}\n{}", self.seen()))
    }

    /// Waits until an expression is true.
    pub fn until(&self, expression: &str) {
        self.again(&format!("see that `{expression}`"), || {
            match self.value(&format!("!!({expression})")) == true {
                true => Ok(()),
                false => Err("it is not so".to_owned()),
            }
        });
    }

    /// Waits until an element has this text.
    pub fn until_text(&self, css: &str, text: &str) {
        let (css, text) = (json!(css), json!(text));
        self.until(&format!(
            "[...document.querySelectorAll({css})].some((e) => e.textContent.includes({text}))"
        ));
    }

    /// Tries until it succeeds.
    fn again<T>(&self, what: &str, attempt: impl Fn() -> Result<T, String>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            match attempt() {
                Ok(value) => return value,
                Err(e) if Instant::now() > end => panic!("cannot {what}: {e}\n{}", self.seen()),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// What the page shows, for a failure's message.
    fn seen(&self) -> String {
        let script = "return location.href + '\\n' + document.body.innerText";
        let seen = self.post("/execute/sync", &json!({ "script": script, "args": [] }));
        seen.map_or_else(|e| e, |v| v.as_str().unwrap_or_default().to_owned())
    }

    /// A picture of what is seen, where somebody wants to look at it (`LEFT_TEST_SHOTS=FOLDER`).
    pub fn shot(&self, name: &str) {
        let Some(dir) = std::env::var_os("LEFT_TEST_SHOTS") else {
            return;
        };
        let path = format!("{}/screenshot", self.session);
        let png = self.driver.ask(Method::GET, &path, &Value::Null).unwrap();
        let png = data_encoding::BASE64.decode(png.as_str().unwrap().as_bytes());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(PathBuf::from(dir).join(format!("{name}.png")), png.unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.ask(Method::DELETE, &self.session, &Value::Null);
    }
}

/// The driver's process.
struct Driver {
    child: Child,
    port: u16,
    runtime: Runtime,
}

impl Driver {
    fn start() -> Self {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start chromedriver: {e}; {MISSING}"));
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out.lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, rest) = line.split_once("successfully on port ")?;
            rest.trim_end_matches('.').parse().ok()
        });
        // What it says later is read, so that it never waits for a reader.
        thread::spawn(move || lines.for_each(drop));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            child,
            port: port.unwrap_or_else(|| panic!("chromedriver names no port; {MISSING}")),
            runtime: runtime.unwrap(),
        }
    }

    /// One request; the value of its answer, or what is wrong in the driver's words.
    fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("127.0.0.1:{}", self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .unwrap();
        let (ok, answer) = self.runtime.block_on(async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.unwrap();
            let ok = response.status().is_success();
            let answer = response.into_body().collect().await.unwrap().to_bytes();
            connection.abort();
            (ok, answer)
        });
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        match ok {
            true => Ok(answer["value"].clone()),
            false => Err(answer["value"]["message"].to_string()),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
