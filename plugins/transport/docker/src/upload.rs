//! Storing a blob: it is mounted, or found in the repository, or sent with POST and PUT (4.3, 4.5).

use super::*;
use dray_plugin_transport::ask;
use serde::Serialize;

/// The way in which the bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum How {
    /// In chunks if the blob is large and the registry accepts chunks, otherwise in one PUT.
    Usual,
    /// In one PUT, because the registry has lost track of chunks.
    Whole,
    /// In one PATCH and an empty PUT, because the registry accepts no bytes with a PUT.
    Patch,
}

/// The answer for which the upload waits.
#[derive(Serialize, Deserialize)]
enum State {
    Mount,
    Head,
    Start(How),
    /// The answer to the PUT of the whole blob.
    Put,
    /// The answer to the PATCH of the whole blob, which was sent to this URL.
    Patched(String),
    /// The answer to the empty PUT after that PATCH.
    Closed,
    /// The answer to a chunk.
    Chunk(Piece),
    /// The answer to the last chunk.
    Last(Piece),
    /// The answer to the question how much of the upload has arrived, of which everything up to the end of this chunk was
    /// sent.
    Status(Piece),
    /// The answer to the question whether the blob is there after all. If it is not, it is sent in this way.
    Look(How),
}

/// A chunk of an upload.
#[derive(Clone, Serialize, Deserialize)]
struct Piece {
    /// The URL to which it was sent.
    to: String,
    /// Its first byte.
    offset: u64,
    /// Its length in bytes.
    length: u64,
    /// The least length in bytes of all chunks but the last one, as the registry wants it.
    least: Option<u64>,
    /// How often in a row the registry was asked how much has arrived before this chunk was sent.
    #[serde(default)]
    asked: u8,
}

/// How often in a row a registry is asked how much has arrived, while its answers do not agree: the request of a client
/// that has died may still be writing what it received.
const ASKED: u8 = 3;

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Size in bytes. Larger blobs are sent in chunks, so that an interrupted upload can be resumed.
const LARGE: u64 = 256 << 20;
/// Size of a chunk in bytes.
const CHUNK: u64 = 64 << 20;
/// Size of a chunk at Azure's registry in bytes, which limits a body to 20 MB.
const AZURE: u64 = 16 << 20;

/// Size of a chunk at a registry in bytes. `None` means that the blob is sent in one request. `piece` is how much the
/// host wants to send at once, because the line is slow.
fn chunk(location: &str, size: u64, piece: Option<u64>) -> Option<u64> {
    let host = location.split(':').next().unwrap_or_default();
    match host {
        _ if host.ends_with(".azurecr.io") => {
            Some(piece.unwrap_or(AZURE).min(AZURE)).filter(|chunk| size > *chunk)
        }
        // Google's Artifact Registry does not know chunks, Amazon's registry answers each chunk as if it were
        // the whole blob, and GitHub's registry mixes chunks up.
        _ if host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io") => None,
        _ if host.ends_with(".amazonaws.com")
            || host.ends_with(".amazonaws.com.cn")
            || host == "public.ecr.aws"
            || host == "ghcr.io" =>
        {
            None
        }
        _ if size > LARGE => Some(piece.unwrap_or(CHUNK).min(CHUNK)),
        _ => piece.filter(|piece| size > *piece),
    }
}

pub fn advance(
    location: &str,
    repository: &str,
    incoming: &Incoming,
    state: Option<Vec<u8>>,
    last: Option<Outcome>,
) -> Result<NextStep, Error> {
    let digest = &incoming.blob.digest;
    let size = incoming.blob.size;
    let upload = Upload { location, repository, digest, size, chunk: chunk(location, size, incoming.piece) };
    // A state that another version of this plugin left cannot be read, and storing the blob begins again.
    let state: Option<State> = state.and_then(|state| serde_json::from_slice(&state).ok());
    let (status, response) = match &last {
        Some(Outcome::Response(response)) => (response.status, Some(response)),
        _ => (0, None),
    };
    Ok(match (state, status, response) {
        (Some(State::Mount), 201, _) => finished(sink::Arrival::Mounted),
        // The blob was not mounted, but the answer has begun an upload.
        (Some(State::Mount), 202, Some(response)) if leads(response).is_some() => {
            upload.begun(How::Usual, response)?
        }
        // The mount was refused (by a rule of the registry, or because a scope was not granted), or the
        // answer is malformed. The blob is uploaded instead.
        (Some(State::Mount), _, _) => upload.start(How::Usual),
        (Some(State::Head), 200, _) => finished(sink::Arrival::Present),
        (Some(State::Head), _, _) => upload.start(How::Usual),
        (Some(State::Look(_)), 200, _) => finished(sink::Arrival::Stored),
        (Some(State::Look(how)), _, _) => upload.start(how),
        (Some(State::Start(how)), 200..=299, Some(response)) => upload.begun(how, response)?,
        (Some(State::Put | State::Closed | State::Last(_)), 201, _) => finished(sink::Arrival::Stored),
        // Any other success counts if the blob is there.
        (Some(State::Put), 200..=299, _) => upload.look(How::Patch),
        (Some(State::Closed | State::Last(_)), 200..=299, _) => upload.look(How::Whole),
        // The registry does not accept the bytes in this way.
        (Some(State::Put), 400 | 405 | 411 | 415 | 501, _) => upload.start(How::Patch),
        (Some(State::Patched(to)), 200..=299, Some(response)) => upload.close(&after(response, to)?),
        // The answer was lost, and the blob may be there.
        (Some(State::Put), 0, _) => upload.look(How::Whole),
        (Some(State::Closed | State::Patched(_)), 0, _) => upload.look(How::Patch),
        (Some(State::Chunk(piece)), 200 | 202 | 204, Some(response)) => {
            // The registry may claim any number. It is used only if it is more than before, and less than
            // what was sent.
            let stands = arrived(response).filter(|stands| (piece.offset + 1..piece.end()).contains(stands));
            let (stands, least) = (stands.unwrap_or(piece.end()), least(response).or(piece.least));
            upload.send(after(response, piece.to)?, stands, least, 0)
        }
        // More has arrived since the registry was asked, or it still writes what a broken request brought.
        (Some(State::Chunk(piece) | State::Last(piece)), 409 | 416, _)
            if (1..=ASKED).contains(&piece.asked) =>
        {
            upload.status(piece)
        }
        // The registry takes the chunk for the whole blob, so it does not know chunks.
        (Some(State::Chunk(_)), 201, _) => upload.start(How::Whole),
        // The registry takes no chunks, or lost track of the upload, and would lose it again.
        (Some(State::Chunk(_) | State::Last(_)), 400..=408 | 410..=499 | 501, _) => upload.start(How::Whole),
        (Some(State::Chunk(Piece { offset: 0, .. })), 500, _) => upload.start(How::Whole),
        (Some(State::Chunk(piece) | State::Last(piece)), 0 | 500, _) => upload.status(piece),
        (Some(State::Status(piece)), 200 | 202 | 204, Some(response)) => {
            match arrived(response).filter(|stands| *stands <= piece.end()) {
                Some(stands) => upload.send(
                    after(response, piece.to)?,
                    stands,
                    piece.least,
                    piece.asked.saturating_add(1),
                ),
                None => upload.look(How::Whole),
            }
        }
        // The registry has completed this upload. The last answer may have been lost.
        (Some(State::Status(piece)), _, _) if piece.end() >= size => upload.look(How::Usual),
        // The session is gone, or it is not known what arrived of it, so a new one begins.
        (Some(State::Start(how)), _, _) => upload.start(how),
        (Some(_), _, _) => upload.start(How::Usual),
        (None, _, _) => match incoming.siblings.first() {
            Some(from) => upload.mount(from),
            None if incoming.absent => upload.start(How::Usual),
            None => upload.head(),
        },
    })
}

fn finished(how: sink::Arrival) -> NextStep {
    NextStep { step: sink::Step::Finished(how), state: Vec::new() }
}

fn next(step: sink::Step, state: State) -> NextStep {
    // Serialising the state never fails.
    NextStep { step, state: serde_json::to_vec(&state).unwrap_or_default() }
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

    /// Asks whether the blob is there. Every status but 200 only means that asking did not help.
    fn asked(&self) -> Request {
        let expect = [200, 400, 401, 403, 404, 405, 501];
        request("HEAD", self.url(self.digest), &expect, &[wire::push(self.repository)])
    }

    fn head(&self) -> NextStep {
        next(ask(self.asked()), State::Head)
    }

    /// Asks whether the blob is there after all.
    fn look(&self, how: How) -> NextStep {
        next(ask(self.asked()), State::Look(how))
    }

    fn mount(&self, from: &str) -> NextStep {
        let url = self.url(&format!("uploads/?mount={}&from={from}", self.digest));
        let access = [wire::push(self.repository), wire::pull(from)];
        let expect = [200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 415, 422, 500, 501];
        next(ask(request("POST", url, &expect, &access)), State::Mount)
    }

    fn start(&self, how: How) -> NextStep {
        let access = [wire::push(self.repository)];
        let post = request("POST", self.url("uploads/"), &[200, 201, 202, 204], &access);
        next(ask(post), State::Start(how))
    }

    /// Continues an upload that has begun at the address in the answer.
    fn begun(&self, how: How, answer: &Response) -> Result<NextStep, Error> {
        let Some(location) = leads(answer) else {
            return Err(Error::Invalid(format!("{} began an upload without a Location", answer.url)));
        };
        let to = wire::absolute(&answer.url, location)?;
        Ok(match how {
            How::Usual => self.send(to, 0, least(answer), 0),
            How::Whole => Upload { chunk: None, ..*self }.send(to, 0, None, 0),
            How::Patch => {
                let mut patch = self.sending("PATCH", to.clone());
                patch.expect.extend([200, 202, 204]);
                next(
                    sink::Step::Send(sink::Sending { request: patch, offset: 0, length: None }),
                    State::Patched(to),
                )
            }
        })
    }

    /// Completes an upload after all bytes have arrived.
    fn close(&self, to: &str) -> NextStep {
        let put = self.sending("PUT", self.closing(to));
        let sending = sink::Sending { request: put, offset: self.size, length: Some(0) };
        next(sink::Step::Send(sending), State::Closed)
    }

    /// Asks how much of an upload has arrived. A registry that does not say so in whatever way gets the blob anew.
    fn status(&self, piece: Piece) -> NextStep {
        let expect = [200, 202, 204, 400, 403, 404, 405, 409, 410, 416, 422, 500, 501];
        let get = request("GET", piece.to.clone(), &expect, &[wire::push(self.repository)]);
        next(ask(get), State::Status(piece))
    }

    fn closing(&self, to: &str) -> String {
        let joint = if to.contains('?') { '&' } else { '?' };
        format!("{to}{joint}digest={}", self.digest)
    }

    fn sending(&self, method: &str, url: String) -> Request {
        let expect = [200, 201, 202, 204, 404, 416];
        let mut sent = request(method, url, &expect, &[wire::push(self.repository)]);
        sent.headers.push(("content-type".into(), "application/octet-stream".into()));
        sent
    }

    /// Sends the whole blob, a chunk, or what is left of it.
    fn send(&self, to: String, offset: u64, least: Option<u64>, asked: u8) -> NextStep {
        let chunk = self.chunk.map(|chunk| chunk.max(least.unwrap_or(0)));
        let left = self.size.saturating_sub(offset);
        // What follows a chunk is a chunk, even if it is all that is left.
        let length = chunk.or((offset > 0).then_some(left)).map(|chunk| left.min(chunk));
        let last = length.is_none_or(|length| length == left);
        let (method, url) = if last { ("PUT", self.closing(&to)) } else { ("PATCH", to.clone()) };
        let mut sent = self.sending(method, url);
        let state = match length {
            None => {
                sent.expect.extend([400, 405, 411, 415, 501]);
                State::Put
            }
            Some(length) => {
                sent.expect.extend([400, 403, 405, 409, 410, 411, 413, 415, 422, 501]);
                if offset == 0 {
                    sent.expect.push(500);
                }
                let range = format!("{offset}-{}", (offset + length).saturating_sub(1));
                sent.headers.push(("content-range".into(), range));
                let piece = Piece { to, offset, length, least, asked };
                if last { State::Last(piece) } else { State::Chunk(piece) }
            }
        };
        next(sink::Step::Send(sink::Sending { request: sent, offset, length }), state)
    }
}

/// The URL at which an upload continues. An answer need not repeat it.
fn after(answer: &Response, to: String) -> Result<String, Error> {
    match leads(answer) {
        Some(location) => wire::absolute(&answer.url, location),
        None => Ok(to),
    }
}

fn leads(answer: &Response) -> Option<&str> {
    header(answer, "location").filter(|location| !location.is_empty())
}

/// The minimum size of a chunk in bytes (4.3.3).
fn least(answer: &Response) -> Option<u64> {
    header(answer, "oci-chunk-min-length").and_then(|least| least.parse().ok())
}

/// How many bytes of an upload the registry says to have (`Range: 0-99`). One byte looks like none, so it is
/// sent again.
fn arrived(answer: &Response) -> Option<u64> {
    let range =
        header(answer, "range").map(|range| range.trim_start_matches("bytes").trim_start_matches(['=', ' ']));
    let last =
        range.and_then(|range| range.split_once('-')).and_then(|(_, last)| last.parse::<u64>().ok())?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sink::{Arrival, Asking, Step};

    fn incoming(siblings: &[&str]) -> Incoming {
        let blob = Descriptor {
            extra: Vec::new(),
            media_type: String::new(),
            digest: "sha256:ab".into(),
            size: 3,
            artifact_type: None,
            annotations: Vec::new(),
        };
        Incoming {
            extra: Vec::new(),
            blob,
            siblings: siblings.iter().map(|name| name.to_string()).collect(),
            sized: true,
            absent: false,
            piece: None,
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
        let (Step::Ask(Asking { request: post, .. }), state) = step(&incoming, state, answer(404, "")) else {
            panic!()
        };
        assert_eq!((post.method.as_str(), post.url.as_str()), ("POST", "https://r/v2/a/blobs/uploads/"));
        let (Step::Send(put), state) =
            step(&incoming, state, answer(202, "/v2/a/blobs/uploads/u?_state=x%3D"))
        else {
            panic!()
        };
        assert_eq!(put.request.url, "https://r/v2/a/blobs/uploads/u?_state=x%3D&digest=sha256:ab");
        let (last, _) = step(&incoming, state, answer(201, ""));
        assert_eq!(last, Step::Finished(Arrival::Stored));
    }

    #[test]
    fn a_mount_that_is_not_made_goes_on_as_an_upload() {
        let incoming = incoming(&["b"]);
        let (Step::Ask(Asking { request: post, .. }), state) = step(&incoming, None, None) else { panic!() };
        assert_eq!(post.url, "https://r/v2/a/blobs/uploads/?mount=sha256:ab&from=b");
        assert_eq!(post.access[1].repository, "b");
        assert_eq!(step(&incoming, state.clone(), answer(201, "")).0, Step::Finished(Arrival::Mounted));
        assert!(matches!(step(&incoming, state.clone(), answer(202, "/u")).0, Step::Send(_)));
        let without = Some(Outcome::Response(Response {
            status: 202,
            headers: Vec::new(),
            body: Vec::new(),
            url: String::new(),
        }));
        assert!(
            matches!(step(&incoming, state.clone(), without).0, Step::Ask(Asking { request: post, .. }) if !post.url.contains("mount"))
        );
        assert!(
            matches!(step(&incoming, state, answer(403, "")).0, Step::Ask(Asking { request: post, .. }) if !post.url.contains("mount"))
        );
    }

    #[test]
    fn what_may_be_there_is_asked_for_first() {
        let incoming = incoming(&[]);
        let (Step::Ask(Asking { request: head, .. }), state) = step(&incoming, None, None) else { panic!() };
        assert_eq!(head.method, "HEAD");
        assert_eq!(step(&incoming, state, answer(200, "")).0, Step::Finished(Arrival::Present));
    }

    #[test]
    fn what_cannot_be_there_is_not_asked_for() {
        let incoming = Incoming { absent: true, ..incoming(&[]) };
        let (Step::Ask(Asking { request: post, .. }), _) = step(&incoming, None, None) else { panic!() };
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
        // Another process asks how much has arrived, and continues there.
        let interrupted = Some(Outcome::Interrupted(String::new()));
        let (Step::Ask(Asking { request: status, .. }), asked) = step(&incoming, state.clone(), interrupted)
        else {
            panic!()
        };
        assert_eq!((status.method.as_str(), status.url.as_str()), ("GET", "https://r/u?_state=1"));
        let (Step::Send(on), sent) = step(&incoming, asked.clone(), answer(204, "0-99999999")) else {
            panic!()
        };
        assert_eq!(on.offset, 100_000_000);
        // The request of the dead process still brought something, or still holds the upload. The registry is asked
        // again, but not for ever.
        let mut sent = sent;
        for refused in [416, 409, 416] {
            let (Step::Ask(Asking { request: status, .. }), asked) =
                step(&incoming, sent, answer(refused, ""))
            else {
                panic!()
            };
            assert_eq!(status.method, "GET");
            let (Step::Send(on), again) = step(&incoming, asked, answer(204, "0-109999999")) else {
                panic!()
            };
            assert_eq!(on.offset, 110_000_000);
            sent = again;
        }
        let (Step::Ask(Asking { request: post, .. }), _) = step(&incoming, sent, answer(416, "")) else {
            panic!()
        };
        assert_eq!(post.method, "POST");
        // A position after everything that was sent is not accepted: the blob is looked for, and sent as a
        // whole.
        let (Step::Ask(Asking { request: look, .. }), _) =
            step(&incoming, asked.clone(), answer(204, "0-335544319"))
        else {
            panic!()
        };
        assert_eq!(look.method, "HEAD");
        let piece = Piece {
            to: "https://r/u?_state=1".into(),
            offset: 256 << 20,
            length: 64 << 20,
            least: None,
            asked: 0,
        };
        let status = State::Status(piece);
        let status = Some(serde_json::to_vec(&status).unwrap());
        let (Step::Send(last), ended) = step(&incoming, status, answer(204, "0-335544319")) else { panic!() };
        assert_eq!((last.request.method.as_str(), last.offset, last.length), ("PUT", 320 << 20, Some(5)));
        assert_eq!(last.request.url, "https://r/u?_state=1&digest=sha256:ab");
        assert_eq!(step(&incoming, ended, answer(201, "")).0, Step::Finished(Arrival::Stored));
        // A registry may require larger chunks (4.3.3 of the distribution specification).
        let begun = || step(&incoming, None, None).1;
        for (least, chunk) in [("104857600", 100 << 20), ("1", 64 << 20)] {
            let Some(Outcome::Response(mut response)) = answer(202, "0-0") else { panic!() };
            response.headers.push(("oci-chunk-min-length".into(), least.into()));
            let (Step::Send(first), _) = step(&incoming, begun(), Some(Outcome::Response(response))) else {
                panic!()
            };
            assert_eq!(first.length, Some(chunk));
        }
        // If a registry takes a chunk for the whole blob, it gets the whole blob.
        let (Step::Ask(Asking { request: post, .. }), whole) =
            step(&incoming, state.clone(), answer(201, ""))
        else {
            panic!()
        };
        assert_eq!(post.method, "POST");
        let (Step::Send(all), whole_sent) = step(&incoming, whole, answer(202, "0-0")) else { panic!() };
        assert_eq!((all.request.method.as_str(), all.offset, all.length), ("PUT", 0, None));
        // If that is interrupted and the blob is not there, the whole blob is sent again.
        let broken = Some(Outcome::Interrupted("reset".into()));
        let (Step::Ask(Asking { request: look, .. }), looked) = step(&incoming, whole_sent, broken) else {
            panic!()
        };
        assert_eq!(look.method, "HEAD");
        let (Step::Ask(_), whole) = step(&incoming, looked, answer(404, "")) else { panic!() };
        let (Step::Send(all), _) = step(&incoming, whole, answer(202, "0-0")) else { panic!() };
        assert_eq!((all.request.method.as_str(), all.length), ("PUT", None));
        // Somebody else writes to the upload.
        let (Step::Ask(Asking { request: post, .. }), _) = step(&incoming, state.clone(), answer(409, ""))
        else {
            panic!()
        };
        assert_eq!(post.method, "POST");
        // If the registry has forgotten the upload, a new one begins.
        let (Step::Ask(Asking { request: post, .. }), _) = step(&incoming, asked, answer(404, "")) else {
            panic!()
        };
        assert_eq!(post.method, "POST");
        let (Step::Ask(Asking { request: post, .. }), _) = step(&incoming, state, answer(416, "")) else {
            panic!()
        };
        assert_eq!(post.method, "POST");
    }

    #[test]
    fn what_a_registry_says_to_have_is_a_claim() {
        let large = Descriptor { size: 320 << 20, ..incoming(&[]).blob };
        let incoming = Incoming { blob: large, absent: true, ..incoming(&[]) };
        let state = || {
            Some(
                serde_json::to_vec(&State::Chunk(Piece {
                    to: "https://r/u".into(),
                    offset: 64 << 20,
                    length: 64 << 20,
                    least: None,
                    asked: 0,
                }))
                .unwrap(),
            )
        };
        let own = 128 << 20;
        for (status, range, offset) in [
            (202, "0-134217727", own),
            (202, "", own),
            (202, "bytes 0-zzz", own),
            (202, "0-0", own),
            (202, "0-67108863", own),
            (202, "0-999999999", own),
            (204, "", own),
            (200, "bytes=0-134217727", own),
            (202, "0-99999999", 100_000_000),
        ] {
            let Some(Outcome::Response(mut response)) = answer(status, "") else { panic!() };
            response.headers = vec![("range".into(), range.into())];
            let (Step::Send(next), _) = step(&incoming, state(), Some(Outcome::Response(response))) else {
                panic!()
            };
            assert_eq!((next.offset, next.request.url.as_str()), (offset, "https://r/u"), "{status} {range}");
        }
    }

    #[test]
    fn one_way_in_is_refused_and_another_works() {
        let incoming = Incoming { absent: true, ..incoming(&[]) };
        let (_, begun) = step(&incoming, None, None);
        let (Step::Send(put), sent) = step(&incoming, begun, answer(202, "/u")) else { panic!() };
        assert_eq!((put.request.method.as_str(), put.length), ("PUT", None));
        // The registry accepts no bytes with its PUT.
        let (Step::Ask(Asking { request: post, .. }), begun) = step(&incoming, sent.clone(), answer(405, ""))
        else {
            panic!()
        };
        assert_eq!(post.method, "POST");
        let (Step::Send(patch), patched) = step(&incoming, begun, answer(202, "/u?s=1")) else { panic!() };
        assert_eq!((patch.request.method.as_str(), patch.offset, patch.length), ("PATCH", 0, None));
        let (Step::Send(close), closed) = step(&incoming, patched, answer(204, "")) else { panic!() };
        assert_eq!((close.offset, close.length), (3, Some(0)));
        assert_eq!(close.request.url, "https://r/u?s=1&digest=sha256:ab");
        // Any other success counts if the blob is there.
        for state in [closed, sent] {
            let (Step::Ask(Asking { request: look, .. }), looked) = step(&incoming, state, answer(200, ""))
            else {
                panic!()
            };
            assert_eq!(look.method, "HEAD");
            assert_eq!(step(&incoming, looked.clone(), answer(200, "")).0, Step::Finished(Arrival::Stored));
            assert!(
                matches!(step(&incoming, looked, answer(404, "")).0, Step::Ask(Asking { request: post, .. }) if post.method == "POST")
            );
        }
    }

    #[test]
    fn what_follows_a_piece_is_sent_at_once_if_the_line_is_fast_after_all() {
        let blob = Descriptor { size: 20, ..incoming(&[]).blob };
        let first = Incoming { blob, absent: true, piece: Some(8), ..incoming(&[]) };
        let (_, state) = step(&first, None, None);
        let (Step::Send(patch), state) = step(&first, state, answer(202, "/u")) else { panic!() };
        assert_eq!((patch.request.method.as_str(), patch.offset, patch.length), ("PATCH", 0, Some(8)));
        let then = Incoming { piece: None, ..first };
        let (Step::Send(put), state) = step(&then, state, answer(202, "/u")) else { panic!() };
        assert_eq!((put.request.method.as_str(), put.offset, put.length), ("PUT", 8, Some(12)));
        assert!(put.request.headers.contains(&("content-range".to_owned(), "8-19".to_owned())));
        assert_eq!(step(&then, state, answer(201, "")).0, Step::Finished(Arrival::Stored));
    }

    #[test]
    fn a_registry_that_refuses_a_piece_gets_the_blob_whole() {
        let blob = Descriptor { size: 20, ..incoming(&[]).blob };
        let incoming = Incoming { blob, absent: true, piece: Some(8), ..incoming(&[]) };
        for status in [400, 403, 404, 405, 410, 411, 413, 415, 416, 422, 500, 501] {
            let (_, state) = step(&incoming, None, None);
            let (Step::Send(piece), state) = step(&incoming, state, answer(202, "/u")) else { panic!() };
            assert!(piece.request.expect.contains(&status), "{status}");
            let (Step::Ask(Asking { request: post, .. }), state) = step(&incoming, state, answer(status, ""))
            else {
                panic!()
            };
            assert_eq!(post.method, "POST", "{status}");
            let (Step::Send(whole), _) = step(&incoming, state, answer(202, "/u")) else { panic!() };
            assert_eq!((whole.request.method.as_str(), whole.length), ("PUT", None), "{status}");
        }
    }

    #[test]
    fn the_least_length_of_a_chunk_holds_for_all_of_them() {
        let blob = Descriptor { size: 100, ..incoming(&[]).blob };
        let incoming = Incoming { blob, absent: true, piece: Some(8), ..incoming(&[]) };
        let (_, state) = step(&incoming, None, None);
        let Some(Outcome::Response(mut begun)) = answer(202, "/u") else { panic!() };
        begun.headers.push(("oci-chunk-min-length".into(), "30".into()));
        let (Step::Send(first), state) = step(&incoming, state, Some(Outcome::Response(begun))) else {
            panic!()
        };
        let (Step::Send(second), _) = step(&incoming, state, answer(202, "/u")) else { panic!() };
        assert_eq!((first.length, second.offset, second.length), (Some(30), 30, Some(30)));
    }

    #[test]
    fn registries_have_their_own_chunks() {
        assert_eq!(chunk("a.azurecr.io", 17 << 20, None), Some(16 << 20));
        assert_eq!(chunk("a.azurecr.io", 17 << 20, Some(4 << 20)), Some(4 << 20));
        for none in
            ["europe-docker.pkg.dev", "1.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws", "ghcr.io"]
        {
            assert_eq!(chunk(none, 1 << 40, Some(4 << 20)), None);
        }
        for (size, piece, chunked) in [
            (256 << 20, None, None),
            ((256 << 20) + 1, None, Some(64 << 20)),
            ((256 << 20) + 1, Some(4 << 20), Some(4 << 20)),
            (28 << 20, Some(4 << 20), Some(4 << 20)),
            (4 << 20, Some(4 << 20), None),
        ] {
            assert_eq!(chunk("r.example:5000", size, piece), chunked);
        }
    }

    #[test]
    fn an_interrupted_upload_begins_again() {
        let incoming = incoming(&[]);
        let state = Some(serde_json::to_vec(&State::Put).unwrap());
        let broken = || Some(Outcome::Interrupted("reset".into()));
        let (Step::Ask(Asking { request: look, .. }), looked) = step(&incoming, state, broken()) else {
            panic!()
        };
        assert_eq!(look.method, "HEAD");
        // Only the answer was lost.
        assert_eq!(step(&incoming, looked.clone(), answer(200, "")).0, Step::Finished(Arrival::Stored));
        let (Step::Ask(Asking { request: post, .. }), _) = step(&incoming, looked, answer(404, "")) else {
            panic!()
        };
        assert_eq!(post.method, "POST");
    }
}
