//! Machines on one network find each other, whatever addresses they have; and lose each other for
//! no longer than the network is away.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use simple_dns::rdata::{PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, ResourceRecord};

use crate::common::{Device, Net, World, until, write};

/// Machines in a network of their own; `None` where this test may not.
fn machines<const N: usize>(world: &World) -> Option<(Net, [Device; N])> {
    let Some(net) = Net::new(N) else {
        eprintln!("no network namespaces here");
        return None;
    };
    let device = |n: usize| {
        let mut device = world.device(&format!("m{n}"));
        device.how.wrap = net.wrap(n);
        device.how.roams = true;
        device.host = Net::address(n);
        device
    };
    let devices = std::array::from_fn(device);
    Some((net, devices))
}

fn told(what: &str, since: Instant) {
    println!("{what}: {} ms", since.elapsed().as_millis());
    assert!(since.elapsed() < Duration::from_secs(20), "{what}");
}

fn connected(device: &Device, times: usize) {
    until("a connection", || {
        device.events("peer_connected").len() >= times
    });
}

#[test]
fn a_ticket_works_after_the_address_changed() {
    let world = World::new();
    let Some((net, [mut a, mut b, mut c])) = machines(&world) else {
        return;
    };
    write(&a.share.join("file"), "content");
    let ticket = a.share();
    let other = a.ok(&["ticket", a.share.to_str().unwrap(), "--json"]);
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    net.renumber(0, &Net::address(0), "10.78.0.100");
    // One that does not look for it does not find it.
    let dir = c.share.clone();
    let other = other["ticket"].as_str().unwrap();
    c.start(&[
        "join".as_ref(),
        other.as_ref(),
        dir.as_os_str(),
        "--no-discovery".as_ref(),
    ]);

    let begun = Instant::now();
    b.join(&ticket);
    b.expect("peer_connected", |e| {
        let at = e["address"].as_str().unwrap();
        at.starts_with("10.78.0.100") || at.starts_with("[fe80")
    });
    told("joined at the new address", begun);
    until("the file", || b.share.join("file").exists());
    assert!(c.events("peer_connected").is_empty());
    let out = b.ok(&["doctor", "--json"]);
    assert!(out.contains("members are looked for on eth"), "{out}");
}

#[test]
fn looking_for_others_is_switched_while_it_runs() {
    let world = World::new();
    let Some((net, [mut a, mut b])) = machines(&world) else {
        return;
    };
    write(&b.home.join("config.toml"), "discovery = false\n");
    let ticket = a.share();
    net.renumber(0, &Net::address(0), "10.78.0.100");
    b.start(&["up"]);
    until("the left answers", || b.answers());
    write(&b.home.join("config.toml"), "discovery = true\n");
    assert!(b.ok(&["reload"]).contains("discovery"));
    b.ok(&["join".as_ref(), ticket.as_ref(), b.share.as_os_str()]);
    connected(&b, 1);
    write(&b.home.join("config.toml"), "discovery = false\n");
    assert!(b.ok(&["reload"]).contains("discovery"));
    let out = b.ok(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(status["discovery"].is_null(), "{out}");
}

#[test]
fn members_that_moved_are_found() {
    let world = World::new();
    let Some((net, [mut a, mut b])) = machines(&world) else {
        return;
    };
    let ticket = a.share();
    b.join(&ticket);
    connected(&b, 1);
    // Both at once: neither knows where the other is.
    let begun = Instant::now();
    net.renumber(0, &Net::address(0), "10.78.0.100");
    net.renumber(1, &Net::address(1), "10.78.0.101");
    write(&a.share.join("file"), "content");
    until("the file", || b.share.join("file").exists());
    told("found after both moved", begun);

    // Without any IPv4 address at all.
    let begun = Instant::now();
    net.only_v6(0);
    net.only_v6(1);
    write(&b.share.join("other"), "content");
    until("the other file", || a.share.join("other").exists());
    told("found by IPv6 alone", begun);
}

#[test]
fn the_network_comes_back() {
    let world = World::new();
    let Some((net, [mut a, mut b])) = machines(&world) else {
        return;
    };
    let ticket = a.share();
    b.join(&ticket);
    connected(&b, 1);
    net.link(0, false);
    b.kill9();
    b.restart();
    // It tries, in vain, and less and less often.
    until("a failed dial", || b.log().contains("not reached"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(b.events("peer_connected").is_empty());
    let begun = Instant::now();
    net.link(0, true);
    connected(&b, 1);
    told("connected after the cable was put in", begun);
}

#[test]
fn thousands_of_false_answers_do_no_harm() {
    let world = World::new();
    let Some((net, [mut a, mut b, liar])) = machines(&world) else {
        return;
    };
    let ticket = a.share();
    b.join(&ticket);
    connected(&b, 1);
    let before = resident(&a);
    let lies = world.path().join("lies");
    fs::create_dir(&lies).unwrap();
    for n in 0..100 {
        fs::write(lies.join(n.to_string()), lie(n)).unwrap();
    }
    let script = format!(
        "ip route add 224.0.0.0/4 dev eth; for i in $(seq 30); do for f in {}/*; do cat $f > \
         /dev/udp/224.0.0.251/5353; done; done",
        lies.display()
    );
    let wrap = &liar.how.wrap;
    let mut command = Command::new(&wrap[0]);
    command.args(&wrap[1..]).args(["bash", "-c", &script]);
    let sent = command.stderr(Stdio::null()).status().unwrap();
    assert!(sent.success());
    write(&a.share.join("file"), "content");
    until("the file", || b.share.join("file").exists());
    let grown = resident(&a).saturating_sub(before);
    println!("3000 false answers: {grown} KiB more");
    assert!(grown < 20_000, "{grown} KiB");
    // And they can still be found.
    net.renumber(0, &Net::address(0), "10.78.0.100");
    net.renumber(1, &Net::address(1), "10.78.0.101");
    write(&a.share.join("other"), "content");
    until("the other file", || b.share.join("other").exists());
}

fn lie(n: u8) -> Vec<u8> {
    let text = |b: u8| data_encoding::BASE32_NOPAD.encode(&[b; 16]).to_lowercase();
    let service = Name::new("_left._tcp.local").unwrap();
    let instance = format!("{}._left._tcp.local", text(n));
    let instance = Name::new(&instance).unwrap();
    let tag = text(n.wrapping_add(1));
    let txt = TXT::new()
        .with_attribute("v", Some(b"1"))
        .unwrap()
        .with_attribute("t", Some(tag.as_bytes()))
        .unwrap();
    let srv = SRV {
        priority: 0,
        weight: 0,
        port: 20201,
        target: instance.clone(),
    };
    let record = |name: &Name<'_>, data| {
        ResourceRecord::new(name.clone().into_owned(), CLASS::IN, 120, data)
    };
    let mut packet = Packet::new_reply(0);
    packet.answers = vec![
        record(&service, RData::PTR(PTR(instance.clone()))),
        record(&instance, RData::SRV(srv)),
        record(&instance, RData::TXT(txt)),
    ];
    packet.build_bytes_vec_compressed().unwrap()
}

/// KiB.
fn resident(device: &Device) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", device.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
