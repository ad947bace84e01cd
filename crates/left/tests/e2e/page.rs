//! The page in a real browser: what one does with it, clicked through; and who may not.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{Browser, Device, World, assert_same, settle, until, write};

/// A one-time link to a device's page.
fn link(device: &Device) -> String {
    device.ok(&["web"]).trim().to_owned()
}

/// Both devices edit `note.txt` while they do not see each other.
fn conflict(a: &mut Device, b: &mut Device) {
    a.stop();
    b.stop();
    write(&a.share.join("note.txt"), "milk\nbread\n");
    write(&b.share.join("note.txt"), "milk\ncheese\n");
    a.restart();
    b.restart();
    settle(&[a, b]);
}

#[test]
fn a_folder_is_shared_joined_looked_into_and_paused() {
    let world = World::new();
    let (mut a, mut b) = (world.device("attic"), world.device("laptop"));
    write(&a.share.join("plans/garden.txt"), "roses, beans");
    write(
        &a.share.join("evil.html"),
        "<script>document.title='run'</script>",
    );
    for device in [&mut a, &mut b] {
        device.start(&["up"]);
        until("the left answers", || device.answers());
    }
    let browser = Browser::start();

    // The first device has nothing yet: the page says what to do.
    browser.open(&link(&a));
    browser.until_text(".first h1", "Keep a folder identical");
    browser.shot("empty");
    browser.click(".first [data-do=add]");
    browser.keys("dialog input[name=dir]", a.share.to_str().unwrap());
    browser.click("dialog [type=submit]");
    // Sharing goes on to an invitation.
    browser.until_text("dialog h2", "Invite a device to attic");
    browser.click("dialog [type=submit]");
    browser.find("dialog svg.qr");
    browser.shot("invite");
    let ticket = browser.value("document.querySelector('dialog .ticket').value");
    let ticket = ticket.as_str().unwrap().to_owned();
    assert!(ticket.starts_with("left1"), "{ticket}");

    // The second joins on its own page.
    browser.open(&link(&b));
    browser.click(".first [data-do=join]");
    browser.keys("dialog textarea", "left1nonsense");
    browser.keys("dialog input[name=dir]", b.share.to_str().unwrap());
    browser.click("dialog [type=submit]");
    browser.until_text("dialog .wrong", "Cannot read the ticket: ");
    browser.until_text("dialog .wrong", "; copy it again.");
    browser.value("document.querySelector('dialog textarea').value = ''");
    browser.keys("dialog textarea", &ticket);
    browser.click("dialog [type=submit]");
    browser.until_text("main h1", "laptop");
    until("the file is there", || {
        b.share.join("plans/garden.txt").exists()
    });
    browser.until_text(".pill", "Identical");
    settle(&[&a, &b]);
    assert_same(&a.share, &b.share);
    browser.until_text(".devices", "attic");
    browser.shot("folder");

    // A change over there is seen here without asking.
    write(&a.share.join("later.txt"), "later");
    browser.until_text(".log", "later.txt");

    look_into(&browser);
    hold_a_part(&browser, &a, &b);
    pause_and_resume(&browser, &b);
    fits_a_phone(&b);
}

#[test]
fn one_way_pausing_a_device_and_settings() {
    let world = World::new();
    let (a, b) = world.pair();
    write(&a.share.join("file.txt"), "one");
    settle(&[&a, &b]);
    let browser = Browser::start();
    browser.open(&link(&b));
    browser.click(".card a");
    browser.click(".tabs a[href$='/settings']");
    browser.click("[data-do=mode][data-mode=send-only]");
    until("the mode", || b.status()["mode"] == "send-only");
    browser.shot("modes");
    write(&a.share.join("file.txt"), "two");
    write(&a.share.join("more.txt"), "more");
    browser.click(".tabs a");
    browser.until_text(".withheld", "2 changes of the others");
    browser.until_text(".withheld", "more.txt new there");
    browser.shot("withheld");
    browser.click("[data-do=take]");
    browser.click("dialog footer button.main");
    until("it is done", || b.share.join("more.txt").exists());
    browser.until_text("main", "Only sends");

    // The other device is held still, and goes on.
    browser.click("[data-do=pausepeer]");
    browser.until_text(".devices", "Paused by you");
    until("it is gone", || b.state() == "offline");
    browser.shot("paused-device");
    browser.click("[data-do=pausepeer]");
    browser.until_text(".devices", "Identical");

    // Settings: what is wrong is said, what is right is written beside the user's own.
    fs::write(b.home.join("config.toml"), "# mine\nfuture = 1\n").unwrap();
    let home = browser.value("location.origin");
    browser.open(&format!("{}/#/device", home.as_str().unwrap()));
    browser.keys(".setform [name='bandwidth.up']", "5MB");
    browser.keys(".setform [name='history.days']", "0");
    browser.click("[data-do=settings]");
    browser.until_text("body", "is 1 to 36500");
    browser.keys(".setform [name='history.days']", "\u{e003}9");
    browser.click("[data-do=settings]");
    until("it is written", || {
        let text = fs::read_to_string(b.home.join("config.toml")).unwrap();
        text.contains("days = 9") && text.contains("up = \"5MB\"") && text.contains("# mine")
    });
    browser.keys(".setform textarea", "22:00-07:00 always");
    browser.click("[data-do=settings]");
    browser.until_text("body", "`always` is no rate");
    let erase = "\u{e003}".repeat("always".len());
    browser.keys(".setform textarea", &format!("{erase}unlimited"));
    browser.click("[data-do=settings]");
    until("the hours are written", || {
        let text = fs::read_to_string(b.home.join("config.toml")).unwrap();
        text.contains("schedule = [\"22:00-07:00 unlimited\"]")
    });
    browser.click("[data-do=discovery]");
    browser.until_text("[data-do=discovery]", "off");
    browser.until_text("#toasts", "Saved. It holds from now on.");
    browser.shot("settings");
    let phone = Browser::phone();
    phone.open(&link(&b));
    phone.open(&format!("{}/#/device", home.as_str().unwrap()));
    phone.until_text(".setform", "Keep old versions");
    phone.until("document.documentElement.scrollWidth <= innerWidth");
    phone.shot("settings-phone");
}

fn look_into(browser: &Browser) {
    browser.click(".tabs a[href$='/files']");
    browser.click(".files a[href$='/plans']");
    browser.until_text(".files", "garden.txt");
    browser.click(".files [data-do=look]");
    browser.until_text("dialog pre", "roses, beans");
    browser.click("dialog .close");
    browser.click(".crumbs a");
    browser.until_text(".files", "evil.html");
    browser.click(".files [data-path='evil.html']");
    // A page of somebody's is text here, never run.
    browser.until_text("dialog pre", "<script>document.title");
    assert_ne!(browser.value("document.title"), "run");
    browser.shot("preview");
    browser.click("dialog .close");
}

/// A folder goes from this device only, and comes back.
fn hold_a_part(browser: &Browser, a: &Device, b: &Device) {
    browser.click(".files [data-do=drop][data-path='plans']");
    browser.until_text("dialog h2", "Remove plans from this device?");
    browser.click("dialog footer .main");
    browser.find(".files [data-do=fetch][data-path='plans']");
    assert!(!b.share.join("plans").exists());
    assert!(a.share.join("plans/garden.txt").exists());
    browser.shot("part");
    browser.click(".files [data-do=fetch][data-path='plans']");
    until("it is back", || b.share.join("plans/garden.txt").exists());
    settle(&[a, b]);
    browser.until_text("h1 .pill", "Identical");
}

fn pause_and_resume(browser: &Browser, b: &Device) {
    browser.click("[data-do=pause]");
    browser.until_text("h1 .pill", "Paused");
    assert_eq!(b.state(), "paused");
    browser.click("[data-do=resume]");
    browser.until_text("h1 .pill", "Identical");
    assert_eq!(b.state(), "synced");
    browser.click(".tabs a[href$='/settings']");
    browser.keys(".limits [name=up]", "5MB");
    browser.click("[data-do=limit]");
    browser.until_text(".limits p", "Sends 5.00 MB/s, receives as fast as it goes");
    // And by keys alone: the first thing that is reached leads past the list of places.
    let home = browser.value("location.origin");
    browser.open(home.as_str().unwrap());
    browser.find(".card");
    browser.keys("body", "\u{e004}");
    assert_eq!(
        browser.value("document.activeElement.textContent"),
        "Skip to the content"
    );
}

/// Nothing is wider than a telephone.
fn fits_a_phone(device: &Device) {
    let phone = Browser::phone();
    phone.open(&link(device));
    phone.find(".card");
    phone.shot("phone");
    phone.click(".card .cover");
    phone.find(".devices");
    let narrow = "document.documentElement.scrollWidth <= innerWidth && innerWidth < 400";
    phone.until(narrow);
    phone.shot("phone-folder");
    phone.click(".tabs a[href$='/files']");
    phone.until_text(".files", "evil.html");
    phone.until(narrow);
}

#[test]
fn a_conflict_is_resolved_and_a_version_brought_back() {
    let world = World::new();
    let (mut a, mut b) = world.pair();
    write(&a.share.join("note.txt"), "milk\n");
    write(&a.share.join("draft.txt"), "first thoughts\n");
    settle(&[&a, &b]);
    write(&a.share.join("draft.txt"), "second thoughts\n");
    conflict(&mut a, &mut b);
    let browser = Browser::start();

    browser.open(&link(&b));
    browser.click(".card .warn a");
    browser.until_text(".conflict .one", "bread");
    browser.until_text(".conflict .one", "cheese");
    browser.shot("conflict");
    let kept = browser.value("document.querySelectorAll('.conflict .one pre')[1].textContent");
    browser.click("[data-keep=copy]");
    browser.until_text(".tab", "No conflicts");
    settle(&[&a, &b]);
    let note = fs::read_to_string(a.share.join("note.txt")).unwrap();
    assert_eq!(kept, note.as_str());
    assert_eq!(
        fs::read_dir(&a.share).unwrap().count(),
        3,
        "no copy is left"
    );

    browser.click(".tabs a[href$='/history']");
    browser.click("[data-do=versions][data-path='draft.txt']");
    browser.click("dialog .versions button");
    browser.until_text("dialog .seen pre", "first thoughts");
    // Two versions of one minute can be told apart.
    browser.until(
        r"/until \d\d?:\d\d:\d\d/.test(document.querySelector('dialog .versions').textContent)",
    );
    browser.shot("versions");
    browser.click("dialog .versions button.main");
    browser.click("dialog footer button.main");
    until("the version is back on both", || {
        [&a, &b].iter().all(|d| {
            fs::read_to_string(d.share.join("draft.txt")).is_ok_and(|t| t == "first thoughts\n")
        })
    });
    settle(&[&a, &b]);
}

/// One request, as given; the whole answer.
fn raw(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

struct Asker {
    port: u16,
    cookie: String,
}

impl Asker {
    /// `GET path` with these more header lines, each with its end.
    fn get(&self, path: &str, more: &str) -> String {
        let host = format!("Host: 127.0.0.1:{}\r\n", self.port);
        self.send("GET", path, &format!("{host}{more}"))
    }

    fn send(&self, method: &str, path: &str, headers: &str) -> String {
        let cookie = &self.cookie;
        let rest = "Content-Length: 2\r\nConnection: close\r\n\r\n{}";
        raw(
            self.port,
            &format!("{method} {path} HTTP/1.1\r\n{headers}Cookie: {cookie}\r\n{rest}"),
        )
    }
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

/// Enters with a link, as a browser does.
fn enter(url: &str) -> (u16, String, String) {
    let rest = url.strip_prefix("http://127.0.0.1:").unwrap();
    let (port, path) = rest.split_once('/').unwrap();
    let port = port.parse().unwrap();
    let get =
        format!("GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    (port, get.clone(), raw(port, &get))
}

#[test]
fn nobody_else_gets_in_and_no_file_runs() {
    let world = World::new();
    let mut a = world.device("a");
    write(&a.share.join("evil.html"), "<script>alert(1)</script>");
    write(&a.share.join("evil.svg"), "<svg onload='alert(1)'/>");
    write(&world.path().join("secret"), "not in the share");
    std::os::unix::fs::symlink(world.path(), a.share.join("out")).unwrap();
    a.share();

    let (port, again, entered) = enter(&link(&a));
    assert_eq!(status(&entered), 200, "{entered}");
    let cookie = entered
        .lines()
        .find_map(|l| l.strip_prefix("set-cookie: "))
        .unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(status(&raw(port, &again)), 401, "a link works once");

    let asker = Asker { port, cookie };
    let page = asker.get("/", "");
    assert_eq!(status(&page), 200);
    for line in [
        "x-frame-options: DENY",
        "frame-ancestors 'none'",
        "default-src 'none'",
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
    assert_eq!(status(&asker.get("/v1/status", "")), 200);
    refusals(&asker);
    files_stay_files(&asker, a.share.to_str().unwrap());
}

fn refusals(asker: &Asker) {
    let port = asker.port;
    let host = format!("Host: 127.0.0.1:{port}\r\n");
    let own = format!("Origin: http://127.0.0.1:{port}\r\n");
    // Nothing without the cookie, or with another one.
    for cookie in ["", "left-1=x", &format!("left-{port}=0000")] {
        let stranger = Asker {
            port,
            cookie: cookie.to_owned(),
        };
        for path in [
            "/",
            "/v1/status",
            "/v1/live",
            "/metrics",
            "/v1/file?dir=/&path=x",
        ] {
            let answer = stranger.get(path, "");
            assert_eq!(status(&answer), 401, "{path} with `{cookie}`: {answer}");
        }
    }
    // Another name for this machine, two names, none.
    for host in [
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\n"),
        "Host: 127.0.0.1\r\n".to_owned(),
        format!("{host}Host: evil.example\r\n"),
        String::new(),
    ] {
        let answer = asker.send("GET", "/v1/status", &host);
        assert!([400, 403].contains(&status(&answer)), "{host}: {answer}");
    }
    // Another site.
    for more in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(status(&asker.get("/v1/status", more)), 403, "{more}");
    }
    // What changes something must say where it comes from.
    assert_eq!(status(&asker.send("POST", "/v1/up", &host)), 403);
    assert_eq!(
        status(&asker.send("POST", "/v1/up", &format!("{host}{own}"))),
        200
    );
    let form = format!("{host}Origin: http://127.0.0.1:1\r\n");
    assert_eq!(status(&asker.send("POST", "/v1/stop", &form)), 403);
    assert_eq!(status(&asker.get("/assets/../mod.rs", "")), 404);
    assert_eq!(status(&asker.get("/assets/%2e%2e/mod.rs", "")), 404);
}

fn files_stay_files(asker: &Asker, share: &str) {
    for name in ["evil.html", "evil.svg"] {
        for preview in ["", "&preview=true"] {
            let answer = asker.get(&format!("/v1/file?dir={share}&path={name}{preview}"), "");
            assert_eq!(status(&answer), 200, "{answer}");
            let kind = match preview {
                "" => "application/octet-stream",
                _ => "text/plain",
            };
            for line in [
                &format!("content-type: {kind}"),
                "x-content-type-options: nosniff",
                "content-security-policy: default-src 'none'; sandbox",
            ] {
                assert!(answer.contains(line), "no {line} in {answer}");
            }
            let saved = answer.contains("content-disposition: attachment");
            assert_eq!(saved, preview.is_empty(), "{answer}");
        }
    }
    for path in [
        "../secret",
        "..%2Fsecret",
        "out/secret",
        "/etc/passwd",
        ".left/index.db",
        "x/../../secret",
        "%00",
        "",
    ] {
        for request in ["/v1/file", "/v1/list"] {
            let answer = asker.get(&format!("{request}?dir={share}&path={path}"), "");
            let root = request == "/v1/list" && path.is_empty();
            let fine = if root { vec![200] } else { vec![400, 422] };
            assert!(
                fine.contains(&status(&answer)),
                "{request} {path}: {answer}"
            );
            assert!(!answer.contains("not in the share"), "{answer}");
        }
    }
}
