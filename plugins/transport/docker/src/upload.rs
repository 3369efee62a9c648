//! Storing a blob: mount it, find it there, or POST and PUT it (4.3, 4.5).

use super::*;
use serde::Serialize;

/// Which answer is awaited.
#[derive(Serialize, Deserialize)]
enum State {
    Mount,
    Head,
    Start,
    /// Likewise, for all of it in one request: the registry takes no chunks.
    StartWhole,
    /// All of it in one request.
    Put,
    /// A chunk of it, to this address.
    Chunk(String),
    /// The last one.
    Last(String),
    /// How much of it has arrived at this address.
    Status(String),
}

/// Blobs of more bytes travel in chunks, so that an upload that is broken off can go on.
const LARGE: u64 = 256 << 20;
/// Bytes of a chunk.
const CHUNK: u64 = 64 << 20;

/// Bytes of a chunk at a registry; none: it wants the whole in one request.
fn chunk(location: &str, size: u64) -> Option<u64> {
    let host = location.split(':').next().unwrap_or_default();
    match host {
        // Azure's limit for a body is 20 MB.
        _ if host.ends_with(".azurecr.io") => Some(16 << 20).filter(|chunk| size > *chunk),
        // Google's Artifact Registry knows no chunks; Amazon's answers each as if it were the whole; GitHub's mixes
        // them up.
        _ if host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io") => None,
        _ if host.ends_with(".amazonaws.com")
            || host.ends_with(".amazonaws.com.cn")
            || host == "public.ecr.aws"
            || host == "ghcr.io" =>
        {
            None
        }
        _ => Some(CHUNK).filter(|_| size > LARGE),
    }
}

pub fn advance(
    location: &str,
    repository: &str,
    incoming: &Incoming,
    state: Option<Vec<u8>>,
    last: Option<Outcome>,
) -> Result<Turn, Error> {
    let digest = &incoming.blob.digest;
    let size = incoming.blob.size;
    let upload = Upload { location, repository, digest, size, chunk: chunk(location, size) };
    // What another version of this plugin kept is not understood, and not missed.
    let state: Option<State> = state.and_then(|state| serde_json::from_slice(&state).ok());
    match (state, last) {
        (Some(State::Mount), Some(Outcome::Response(response))) => match response.status {
            201 => Ok(finished(sink::Finish::Mounted)),
            // Not mounted, but the answer has begun an upload.
            202 => upload.next(&response, 0),
            // Refused (another registry's rules, a scope that was not granted): upload it.
            _ => Ok(upload.start()),
        },
        (Some(State::Head), Some(Outcome::Response(response))) => match response.status {
            200 => Ok(finished(sink::Finish::Present)),
            _ => Ok(upload.start()),
        },
        (Some(State::Start), Some(Outcome::Response(response))) => upload.next(&response, 0),
        (Some(State::StartWhole), Some(Outcome::Response(response))) => {
            Upload { chunk: None, ..upload }.next(&response, 0)
        }
        (Some(State::Put), Some(Outcome::Response(response))) if response.status == 201 => {
            Ok(finished(sink::Finish::Stored))
        }
        (Some(State::Last(_)), Some(Outcome::Response(response))) if response.status == 201 => {
            Ok(finished(sink::Finish::Stored))
        }
        (Some(State::Chunk(_) | State::Last(_)), Some(Outcome::Response(response))) => {
            match response.status {
                202 => upload.next(&response, arrived(&response)?),
                // It takes a chunk for the whole, and so knows none.
                201 => Ok(upload.start_whole()),
                // The registry lost track of it (416 and 404), or somebody else writes to it (409).
                _ => Ok(upload.start()),
            }
        }
        (Some(State::Chunk(to) | State::Last(to)), Some(_)) => Ok(upload.status(to)),
        (Some(State::Status(to)), Some(Outcome::Response(response))) => match response.status {
            204 | 202 => upload.go_on(&response, to, arrived(&response)?),
            _ => Ok(upload.start()),
        },
        // Who is sent the whole does not get chunks after all.
        (Some(State::StartWhole | State::Put), _) => Ok(upload.start_whole()),
        // The session is gone, or nobody knows what arrived of it: a new one.
        (Some(_), _) => Ok(upload.start()),
        (None, _) => match incoming.siblings.first() {
            Some(from) => Ok(upload.mount(from)),
            None if incoming.absent => Ok(upload.start()),
            None => Ok(upload.head()),
        },
    }
}

fn finished(how: sink::Finish) -> Turn {
    Turn { step: sink::Step::Finished(how), state: Vec::new() }
}

fn turn(step: sink::Step, state: State) -> Turn {
    // An enum of unit cases always serialises.
    Turn { step, state: serde_json::to_vec(&state).unwrap_or_default() }
}

struct Upload<'a> {
    location: &'a str,
    repository: &'a str,
    digest: &'a str,
    size: u64,
    chunk: Option<u64>,
}

impl Upload<'_> {
    fn url(&self, path: &str) -> String {
        to(self.location, &format!("{}/blobs/{path}", self.repository))
    }

    fn head(&self) -> Turn {
        let head = request("HEAD", self.url(self.digest), &[200, 404], &[wire::push(self.repository)]);
        turn(sink::Step::Ask(head), State::Head)
    }

    fn mount(&self, from: &str) -> Turn {
        let url = self.url(&format!("uploads/?mount={}&from={from}", self.digest));
        let access = [wire::push(self.repository), wire::pull(from)];
        turn(
            sink::Step::Ask(request("POST", url, &[201, 202, 400, 401, 403, 404, 405], &access)),
            State::Mount,
        )
    }

    fn start(&self) -> Turn {
        turn(sink::Step::Ask(self.post()), State::Start)
    }

    fn start_whole(&self) -> Turn {
        turn(sink::Step::Ask(self.post()), State::StartWhole)
    }

    fn post(&self) -> Request {
        request("POST", self.url("uploads/"), &[202], &[wire::push(self.repository)])
    }

    /// Goes on at the address of an answer.
    fn next(&self, answer: &Response, offset: u64) -> Result<Turn, Error> {
        let location = header(answer, "location")
            .ok_or_else(|| Error::Invalid(format!("{} began an upload without a Location", answer.url)))?;
        let to = wire::absolute(&answer.url, location)?;
        Ok(self.send(to, offset, header(answer, "oci-chunk-min-length")))
    }

    /// Goes on where an upload stands; an answer need not repeat the address.
    fn go_on(&self, answer: &Response, to: String, offset: u64) -> Result<Turn, Error> {
        let to = match header(answer, "location") {
            Some(location) => wire::absolute(&answer.url, location)?,
            None => to,
        };
        Ok(self.send(to, offset, None))
    }

    fn status(&self, to: String) -> Turn {
        let get =
            request("GET", to.clone(), &[200, 202, 204, 400, 404, 405, 416], &[wire::push(self.repository)]);
        turn(sink::Step::Ask(get), State::Status(to))
    }

    /// The whole, a chunk, or what is left.
    fn send(&self, to: String, offset: u64, least: Option<&str>) -> Turn {
        let closing = || {
            let joint = if to.contains('?') { '&' } else { '?' };
            format!("{to}{joint}digest={}", self.digest)
        };
        let least = least.and_then(|least| least.parse().ok()).unwrap_or(0);
        let chunk = self.chunk.map(|chunk| chunk.max(least));
        let left = self.size.saturating_sub(offset);
        let length = chunk.map(|chunk| left.min(chunk));
        let last = length.is_none_or(|length| length == left);
        let (method, url) = if last { ("PUT", closing()) } else { ("PATCH", to.clone()) };
        let mut sent = request(method, url, &[201, 404, 416], &[wire::push(self.repository)]);
        sent.headers.push(("content-type".into(), "application/octet-stream".into()));
        let state = match length {
            None => State::Put,
            Some(length) => {
                sent.expect.extend([202, 400, 409]);
                let range = format!("{offset}-{}", (offset + length).saturating_sub(1));
                sent.headers.push(("content-range".into(), range));
                if last { State::Last(to) } else { State::Chunk(to) }
            }
        };
        turn(sink::Step::Send(sink::Sending { request: sent, offset, length }), state)
    }
}
/// Bytes that a registry has of an upload (`Range: 0-99`). One byte looks like none, and is sent again.
fn arrived(answer: &Response) -> Result<u64, Error> {
    let range = header(answer, "range").map(|range| range.trim_start_matches("bytes="));
    let last = range.and_then(|range| range.split_once('-')).and_then(|(_, last)| last.parse::<u64>().ok());
    match last {
        Some(0) => Ok(0),
        Some(last) => Ok(last + 1),
        None => Err(Error::Invalid(format!("{} does not say how much has arrived", answer.url))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sink::{Finish, Step};

    fn incoming(siblings: &[&str]) -> Incoming {
        let blob = Descriptor {
            media_type: String::new(),
            digest: "sha256:ab".into(),
            size: 3,
            artifact_type: None,
            annotations: Vec::new(),
        };
        Incoming {
            blob,
            siblings: siblings.iter().map(|name| name.to_string()).collect(),
            sized: true,
            absent: false,
        }
    }

    fn answer(status: u16, location: &str) -> Option<Outcome> {
        let headers = vec![("location".to_owned(), location.to_owned())];
        Some(Outcome::Response(Response {
            status,
            headers,
            body: Vec::new(),
            url: "https://r/v2/a/blobs/uploads/".into(),
        }))
    }

    fn step(incoming: &Incoming, state: Option<Vec<u8>>, last: Option<Outcome>) -> (Step, Option<Vec<u8>>) {
        let turn = advance("r", "a", incoming, state, last).unwrap();
        (turn.step, Some(turn.state))
    }

    #[test]
    fn a_blob_that_is_not_there_costs_a_post_and_a_put() {
        let incoming = incoming(&[]);
        let (Step::Ask(_), state) = step(&incoming, None, None) else { panic!() };
        let (Step::Ask(post), state) = step(&incoming, state, answer(404, "")) else { panic!() };
        assert_eq!((post.method.as_str(), post.url.as_str()), ("POST", "https://r/v2/a/blobs/uploads/"));
        let (Step::Send(put), state) =
            step(&incoming, state, answer(202, "/v2/a/blobs/uploads/u?_state=x%3D"))
        else {
            panic!()
        };
        assert_eq!(put.request.url, "https://r/v2/a/blobs/uploads/u?_state=x%3D&digest=sha256:ab");
        let (last, _) = step(&incoming, state, answer(201, ""));
        assert_eq!(last, Step::Finished(Finish::Stored));
    }

    #[test]
    fn a_mount_that_is_not_made_goes_on_as_an_upload() {
        let incoming = incoming(&["b"]);
        let (Step::Ask(post), state) = step(&incoming, None, None) else { panic!() };
        assert_eq!(post.url, "https://r/v2/a/blobs/uploads/?mount=sha256:ab&from=b");
        assert_eq!(post.access[1].repository, "b");
        assert_eq!(step(&incoming, state.clone(), answer(201, "")).0, Step::Finished(Finish::Mounted));
        assert!(matches!(step(&incoming, state.clone(), answer(202, "/u")).0, Step::Send(_)));
        assert!(
            matches!(step(&incoming, state, answer(403, "")).0, Step::Ask(post) if !post.url.contains("mount"))
        );
    }

    #[test]
    fn what_may_be_there_is_asked_for_first() {
        let incoming = incoming(&[]);
        let (Step::Ask(head), state) = step(&incoming, None, None) else { panic!() };
        assert_eq!(head.method, "HEAD");
        assert_eq!(step(&incoming, state, answer(200, "")).0, Step::Finished(Finish::Present));
    }

    #[test]
    fn what_cannot_be_there_is_not_asked_for() {
        let incoming = Incoming { absent: true, ..incoming(&[]) };
        let (Step::Ask(post), _) = step(&incoming, None, None) else { panic!() };
        assert_eq!((post.method.as_str(), post.url.as_str()), ("POST", "https://r/v2/a/blobs/uploads/"));
    }

    #[test]
    fn a_large_blob_travels_in_chunks_and_goes_on_where_it_stands() {
        let blob = Descriptor { size: (320 << 20) + 5, ..incoming(&[]).blob };
        let incoming = Incoming { blob, absent: true, ..incoming(&[]) };
        let answer = |status: u16, range: &str| {
            let Some(Outcome::Response(mut response)) = answer(status, "/u?_state=1") else { panic!() };
            response.headers.push(("range".into(), range.into()));
            Some(Outcome::Response(response))
        };
        let (_, state) = step(&incoming, None, None);
        let (Step::Send(first), state) = step(&incoming, state, answer(202, "0-0")) else { panic!() };
        assert_eq!((first.request.method.as_str(), first.offset, first.length), ("PATCH", 0, Some(64 << 20)));
        let range = ("content-range".to_owned(), "0-67108863".to_owned());
        assert!(first.request.headers.contains(&range));
        let (Step::Send(second), state) = step(&incoming, state, answer(202, "0-67108863")) else { panic!() };
        assert_eq!(second.offset, 64 << 20);
        // Another process asks how much has arrived, and goes on there.
        let interrupted = Some(Outcome::Interrupted(String::new()));
        let (Step::Ask(status), asked) = step(&incoming, state.clone(), interrupted) else { panic!() };
        assert_eq!((status.method.as_str(), status.url.as_str()), ("GET", "https://r/u?_state=1"));
        let (Step::Send(on), _) = step(&incoming, asked.clone(), answer(204, "0-99999999")) else { panic!() };
        assert_eq!(on.offset, 100_000_000);
        let (Step::Send(last), ended) = step(&incoming, asked.clone(), answer(204, "0-335544319")) else {
            panic!()
        };
        assert_eq!((last.request.method.as_str(), last.offset, last.length), ("PUT", 320 << 20, Some(5)));
        assert_eq!(last.request.url, "https://r/u?_state=1&digest=sha256:ab");
        assert_eq!(step(&incoming, ended, answer(201, "")).0, Step::Finished(Finish::Stored));
        // A registry may want larger ones (4.3.3 of the distribution specification).
        let begun = || step(&incoming, None, None).1;
        for (least, chunk) in [("104857600", 100 << 20), ("1", 64 << 20)] {
            let Some(Outcome::Response(mut response)) = answer(202, "0-0") else { panic!() };
            response.headers.push(("oci-chunk-min-length".into(), least.into()));
            let (Step::Send(first), _) = step(&incoming, begun(), Some(Outcome::Response(response))) else {
                panic!()
            };
            assert_eq!(first.length, Some(chunk));
        }
        // A registry that takes a chunk for the whole gets the whole.
        let (Step::Ask(post), whole) = step(&incoming, state.clone(), answer(201, "")) else { panic!() };
        assert_eq!(post.method, "POST");
        let (Step::Send(all), whole_sent) = step(&incoming, whole, answer(202, "0-0")) else { panic!() };
        assert_eq!((all.request.method.as_str(), all.offset, all.length), ("PUT", 0, None));
        // It does so again where that breaks off.
        let broken = Some(Outcome::Interrupted("reset".into()));
        let (Step::Ask(_), whole) = step(&incoming, whole_sent, broken) else { panic!() };
        let (Step::Send(all), _) = step(&incoming, whole, answer(202, "0-0")) else { panic!() };
        assert_eq!((all.request.method.as_str(), all.length), ("PUT", None));
        // Somebody else writes to it.
        let (Step::Ask(post), _) = step(&incoming, state.clone(), answer(409, "")) else { panic!() };
        assert_eq!(post.method, "POST");
        // A registry that forgot it begins again.
        let (Step::Ask(post), _) = step(&incoming, asked, answer(404, "")) else { panic!() };
        assert_eq!(post.method, "POST");
        let (Step::Ask(post), _) = step(&incoming, state, answer(416, "")) else { panic!() };
        assert_eq!(post.method, "POST");
    }

    #[test]
    fn registries_have_their_own_chunks() {
        assert_eq!(chunk("a.azurecr.io", 17 << 20), Some(16 << 20));
        for none in
            ["europe-docker.pkg.dev", "1.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws", "ghcr.io"]
        {
            assert_eq!(chunk(none, 1 << 40), None);
        }
        assert_eq!(chunk("r.example:5000", 256 << 20), None);
        assert_eq!(chunk("r.example:5000", (256 << 20) + 1), Some(64 << 20));
    }

    #[test]
    fn an_interrupted_upload_begins_again() {
        let incoming = incoming(&[]);
        let state = Some(serde_json::to_vec(&State::Put).unwrap());
        let (Step::Ask(post), _) = step(&incoming, state, Some(Outcome::Interrupted("reset".into()))) else {
            panic!()
        };
        assert_eq!(post.method, "POST");
    }
}
