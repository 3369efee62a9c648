//! Explains to people what a broken connection means, and what to do about it.

use std::path::Path;

/// What is known of a connection that broke.
pub(super) struct Broken<'a> {
    /// The causes, from the outermost to the innermost.
    pub causes: &'a [String],
    /// The `host[:port]` to which the request was sent.
    pub host: &'a str,
    /// Whether the request used plain HTTP.
    pub plain: bool,
    /// The Unix socket, if the request was sent to a daemon.
    pub socket: Option<&'a Path>,
    /// Whether the request was sent to Docker's daemon.
    pub daemon: bool,
    /// The proxy through which the host is reached, without its password.
    pub proxy: Option<&'a str>,
}

/// The reason for a failure, and what to do about it.
#[derive(Debug, PartialEq)]
pub(super) struct Meaning {
    pub why: String,
    pub help: String,
}

/// Explains a broken connection. `None` means that there is no better text than its own cause.
pub(super) fn meaning(broken: &Broken<'_>) -> Option<Meaning> {
    let Broken { causes, host, plain, socket, daemon, proxy } = broken;
    let has = |text: &str| causes.iter().any(|cause| cause.contains(text));
    let meaning = |why: String, help: String| Some(Meaning { why, help });
    if let Some(found) = socket.and_then(|socket| of_socket(socket, &has)) {
        return Some(found);
    }
    if let Some(proxy) = proxy {
        return of_proxy(proxy, &has);
    }
    if has("failed to lookup address") || has("dns error") {
        return meaning(
            format!("the host {} is not known", host.split(':').next().unwrap_or(host)),
            "check its spelling, and the DNS of this machine; behind a proxy set HTTPS_PROXY".into(),
        );
    }
    if has("Connection refused") {
        let help = match daemon {
            true => "start Docker, or set DOCKER_HOST to where it listens",
            false => "check the port, and that the registry runs",
        };
        return meaning(format!("nothing listens at {host}"), help.into());
    }
    if has("Network is unreachable") || has("No route to host") {
        return meaning(
            format!("there is no way to {host}"),
            "check the network of this machine; behind a proxy set HTTPS_PROXY".into(),
        );
    }
    if !plain && (has("InvalidContentType") || has("received corrupt message")) {
        return meaning(
            format!("{host} does not speak TLS"),
            format!("if it speaks plain HTTP, say tls = \"off\" in [registry.\"{host}\"], or --insecure"),
        );
    }
    if *plain && (has("invalid HTTP version") || has("invalid HTTP status-line")) {
        return meaning(
            format!("{host} does not speak plain HTTP"),
            format!("if it speaks TLS, leave tls = \"off\" out of [registry.\"{host}\"]"),
        );
    }
    if has("UnknownIssuer") {
        return meaning(
            format!("the certificate of {host} is of an authority that is not trusted"),
            "trust the authority with tls = { ca = \"…\" } of the registry, or --tls-ca".into(),
        );
    }
    if has("not valid for name") || has("NotValidForName") {
        return meaning(
            format!("the certificate of {host} is for other names"),
            "use a name that the certificate has, or tls = { verify = false } if you know what answers"
                .into(),
        );
    }
    if has("certificate") && (has("expired") || has("Expired")) {
        return meaning(
            format!("the certificate of {host} has expired"),
            "renew it; check the clock of this machine, too".into(),
        );
    }
    None
}

/// What is said of a socket of Docker's daemon.
fn of_socket(socket: &Path, has: &dyn Fn(&str) -> bool) -> Option<Meaning> {
    let meaning = |why: String, help: String| Some(Meaning { why, help });
    let shown = socket.display();
    if has("No such file or directory") {
        let help =
            "start Docker, or set DOCKER_HOST to where it listens; podman's images are containers-storage:";
        return meaning(format!("there is no socket {shown}"), help.into());
    }
    if has("Permission denied") {
        let help = "use a user of the socket's group (usually docker), or root";
        return meaning(format!("this user may not use the socket {shown}"), help.into());
    }
    if has("Connection refused") {
        return meaning(format!("nothing listens at the socket {shown}"), "start Docker".into());
    }
    None
}

/// What is said of a proxy. `None` means that the failure may be about what is behind it.
fn of_proxy(proxy: &str, has: &dyn Fn(&str) -> bool) -> Option<Meaning> {
    let meaning = |why: String, help: String| Some(Meaning { why, help });
    // What is told of a connection may be about the proxy, or about what is behind it.
    let help = "check `proxy` of the registry in the policy, or HTTPS_PROXY and HTTP_PROXY";
    if has("proxy authorization required") || has("407") {
        let help = "write USER:PASSWORD and an @ before its host, in `proxy` or in HTTPS_PROXY";
        return meaning(format!("the proxy {proxy} wants a login"), help.into());
    }
    if has("Connection refused") {
        return meaning(format!("nothing listens at the proxy {proxy}"), help.into());
    }
    if has("failed to lookup address") || has("dns error") {
        return meaning(format!("the proxy {proxy} is not known"), help.into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_with_their_remedies() {
        for (cause, plain, socket, why, help) in [
            (
                "failed to lookup address information: Name or service not known",
                false,
                None,
                "the host r.example is not known",
                "spelling",
            ),
            (
                "tcp connect error: Connection refused (os error 111)",
                false,
                None,
                "nothing listens at r.example:5000",
                "port",
            ),
            ("Network is unreachable (os error 101)", false, None, "no way to", "HTTPS_PROXY"),
            (
                "received corrupt message of type InvalidContentType",
                false,
                None,
                "does not speak TLS",
                "tls = \"off\" in [registry.\"r.example:5000\"]",
            ),
            ("invalid HTTP version parsed", true, None, "does not speak plain HTTP", "leave tls"),
            (
                "invalid peer certificate: certificate not valid for name \"r.example\"",
                false,
                None,
                "is for other names",
                "verify = false",
            ),
            ("invalid peer certificate: certificate expired", false, None, "has expired", "clock"),
            (
                "No such file or directory (os error 2)",
                true,
                Some("/run/x"),
                "no socket /run/x",
                "DOCKER_HOST",
            ),
            ("Permission denied (os error 13)", true, Some("/run/x"), "may not use", "group"),
        ] {
            let causes = ["error sending request".to_owned(), cause.to_owned()];
            let socket = socket.map(Path::new);
            let broken =
                Broken { causes: &causes, host: "r.example:5000", plain, socket, daemon: false, proxy: None };
            let found = meaning(&broken).unwrap_or_else(|| panic!("{cause}"));
            assert!(found.why.contains(why), "{cause}: {found:?}");
            assert!(found.help.contains(help), "{cause}: {found:?}");
        }
        let broken = |cause: &str, proxy| {
            let causes = [cause.to_owned()];
            meaning(&Broken { causes: &causes, host: "r", plain: false, socket: None, daemon: false, proxy })
        };
        assert_eq!(broken("connection closed before message completed", None), None);
        let proxied = broken("Connection refused (os error 111)", Some("http://p:3128")).unwrap();
        assert!(proxied.why == "nothing listens at the proxy http://p:3128", "{proxied:?}");
        assert_eq!(broken("certificate expired", Some("http://p:3128")), None);
    }
}
