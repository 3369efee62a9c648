//! Docker's daemon.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::{fs, process::Command};
use support::{
    World, has,
    images::{diff_ids, raw, seed},
};

#[test]
fn a_daemon_takes_images_and_gives_them_back() {
    if !has("dockerd") || !has("openssl") || !support::is_root() {
        return;
    }
    let world = World::new();
    seed(&world);
    let socket = world.path("docker.sock");
    let host = format!("unix://{}", socket.display());
    let mut dockerd = Command::new("dockerd");
    dockerd.args(["--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", &host]);
    // The same daemon listens by TCP, to those whom the private authority knows.
    world.certificates();
    let port = support::free_port();
    dockerd.args(["-H", &format!("tcp://127.0.0.1:{port}"), "--tlsverify"]);
    for (flag, name) in [("--tlscacert", "ca.pem"), ("--tlscert", "leaf.pem"), ("--tlskey", "leaf.key")] {
        dockerd.arg(flag).arg(world.path(name));
    }
    for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        dockerd.arg(flag).arg(world.path(name));
    }
    let log = fs::File::create(world.path("dockerd.log")).unwrap();
    dockerd.stdout(log.try_clone().unwrap()).stderr(log);
    let _dockerd = support::Terminated::start(dockerd);
    let docker =
        |arguments: &[&str]| Command::new("docker").args(["-H", &host]).args(arguments).output().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !docker(&["info"]).status.success() {
        let log = fs::read_to_string(world.path("dockerd.log")).unwrap();
        assert!(std::time::Instant::now() < deadline, "dockerd does not listen: {log}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let dray = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        let output = command.env("DOCKER_HOST", &host).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let to = "docker-daemon:r.example/app:1";
    let (code, _, error) = dray(&["copy", "oci:seed:single", to]);
    assert_eq!(code, Some(0), "{error}");
    let (_, again, _) = dray(&["copy", "oci:seed:single", to]);
    assert!(again.contains("1 unchanged"), "{again}");
    let images = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(String::from_utf8(images.stdout).unwrap(), "r.example/app:1\n");
    let (code, _, error) = dray(&["copy", to, "oci:back:1"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(diff_ids(&world, "oci:back:1"), diff_ids(&world, "oci:seed:single"));
    // What Docker itself saves is read.
    assert!(
        docker(&["save", "-o", &world.path("saved.tar").to_string_lossy(), "r.example/app:1"])
            .status
            .success()
    );
    assert_eq!(raw(&world, "docker-archive:saved.tar:r.example/app:1"), raw(&world, "oci:back:1"));
    // From every other place, and to every other one.
    let store = format!("containers-storage:[{}]app:1", world.path("store").display());
    for (number, place) in [
        "oci:other:1",
        "oci-archive:other.tar:1",
        "dir:other-dir",
        "registry-storage:[other-storage]a/b:1",
        "docker-archive:other-docker.tar:app:1",
        &store,
    ]
    .iter()
    .enumerate()
    {
        let to = format!("docker-daemon:r.example/other:{number}");
        let back = format!("oci:again:{number}");
        for (from, to) in [("oci:seed:single", *place), (place, &to), (&to, &back), (&to, place)] {
            let (code, _, error) = dray(&["copy", from, to]);
            assert_eq!(code, Some(0), "{from} {to}: {error}");
        }
        assert_eq!(diff_ids(&world, &back), diff_ids(&world, "oci:seed:single"), "{place}");
        assert_eq!(diff_ids(&world, place), diff_ids(&world, "oci:seed:single"), "{place}");
    }
    let (code, _, error) = dray(&["copy", "--all", "oci:seed:multi", to]);
    assert!(code == Some(1) && error.contains("one platform"), "{error}");
    let (code, _, error) = dray(&["copy", "docker-daemon:none:1", "oci:back:2"]);
    assert!(code == Some(1) && error.contains("no such image"), "{error}");
    for (own, name) in [("leaf.pem", "cert.pem"), ("leaf.key", "key.pem")] {
        fs::copy(world.path(own), world.path(name)).unwrap();
    }
    let by_tcp = |to: &str, folder: &str| {
        let mut command = world.command(&["copy", "docker-daemon:r.example/app:1", to]);
        command.env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}")).env("DOCKER_TLS_VERIFY", "1");
        let output = command.env("DOCKER_CERT_PATH", world.path(folder)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = by_tcp("oci:back:tls", "");
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(raw(&world, "oci:back:tls"), raw(&world, "oci:back:1"));
    // Without certificates neither side trusts the other.
    let (code, error) = by_tcp("oci:back:nobody", "none");
    assert!(code == Some(1) && error.contains("certificate"), "{error}");
    let lost =
        world.command(&["copy", to, "oci:back:3"]).env("DOCKER_HOST", "unix:///none.sock").output().unwrap();
    let error = String::from_utf8(lost.stderr).unwrap();
    assert!(error.contains("docker-daemon"), "{error}");
}
