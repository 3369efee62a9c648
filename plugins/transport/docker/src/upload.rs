//! Storing a blob: mount it, find it there, or POST and PUT it (4.3, 4.5).

use super::*;
use serde::Serialize;

/// Which answer is awaited.
#[derive(Serialize, Deserialize)]
enum State {
    Mount,
    Head,
    Start,
    Put,
}

pub fn advance(
    location: &str,
    repository: &str,
    incoming: &Incoming,
    state: Option<Vec<u8>>,
    last: Option<Outcome>,
) -> Result<Turn, Error> {
    let digest = &incoming.blob.digest;
    let upload = Upload { location, repository, digest };
    let state: Option<State> = match state {
        Some(state) => Some(
            serde_json::from_slice(&state)
                .map_err(|error| Error::Invalid(format!("upload state: {error}")))?,
        ),
        None => None,
    };
    match (state, last) {
        (Some(State::Mount), Some(Outcome::Response(response))) => match response.status {
            201 => Ok(finished(sink::Finish::Mounted)),
            // Not mounted, but the answer has begun an upload.
            202 => upload.put(&response),
            // Refused (another registry's rules, a scope that was not granted): upload it.
            _ => Ok(upload.start()),
        },
        (Some(State::Head), Some(Outcome::Response(response))) => match response.status {
            200 => Ok(finished(sink::Finish::Present)),
            _ => Ok(upload.start()),
        },
        (Some(State::Start), Some(Outcome::Response(response))) => upload.put(&response),
        (Some(State::Put), Some(Outcome::Response(response))) if response.status == 201 => {
            Ok(finished(sink::Finish::Stored))
        }
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
        let post = request("POST", self.url("uploads/"), &[202], &[wire::push(self.repository)]);
        turn(sink::Step::Ask(post), State::Start)
    }

    fn put(&self, begun: &Response) -> Result<Turn, Error> {
        let location = header(begun, "location")
            .ok_or_else(|| Error::Invalid(format!("{} began an upload without a Location", begun.url)))?;
        let url = wire::absolute(&begun.url, location)?;
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}digest={}", self.digest);
        let mut put = request("PUT", url, &[201, 404, 416], &[wire::push(self.repository)]);
        put.headers.push(("content-type".into(), "application/octet-stream".into()));
        Ok(turn(sink::Step::Send(sink::Sending { request: put, offset: 0, length: None }), State::Put))
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
    fn an_interrupted_upload_begins_again() {
        let incoming = incoming(&[]);
        let state = Some(serde_json::to_vec(&State::Put).unwrap());
        let (Step::Ask(post), _) = step(&incoming, state, Some(Outcome::Interrupted("reset".into()))) else {
            panic!()
        };
        assert_eq!(post.method, "POST");
    }
}
