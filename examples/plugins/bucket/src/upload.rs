//! How a blob gets into a bucket: as a whole, or in parts if it is large (Amazon S3 API reference, "Multipart upload").

use crate::objects::{Objects, element};
use dray_plugin::{encoded, serde_json};
use dray_plugin_transport::{
    Error, ask,
    dray::plugin::types::Response,
    exports::dray::plugin::sink::{Arrival, Asking, Incoming, NextStep, Outcome, Sending, Step},
    header,
};
use serde::{Deserialize, Serialize};

/// The usual size of a part in bytes. What is larger than a part is sent in parts, so that an upload that broke goes on.
const WHOLE: u64 = 64 << 20;
/// The smallest part in bytes. Stores take 5 MiB ("Amazon S3 multipart upload limits"), but a part costs a round trip, and its
/// size is chosen before the pace of the line is known.
const SMALLEST: u64 = 16 << 20;
/// Number of parts at most. Stores take ten times as many, but what is known of each must fit into the state of a step (64 KiB).
const PARTS: u64 = 800;

/// Where an upload stands.
#[derive(Deserialize, Serialize)]
enum State {
    /// The store was asked whether it holds the blob.
    Asked,
    /// The blob is sent as a whole.
    Whole,
    /// The store was asked to begin an upload in parts of so many bytes.
    Begun(u64),
    /// The parts that are there, by their ETags, and the next one is sent.
    Parts { id: String, part: u64, etags: Vec<String> },
    /// The store was asked to make one object of the parts.
    Completed { id: String, part: u64, etags: Vec<String> },
}

/// How many bytes each part has. All but the last one are of one size, because some stores want that.
fn part_size(size: u64, piece: Option<u64>) -> u64 {
    piece.unwrap_or(WHOLE).clamp(SMALLEST, WHOLE).max(size.div_ceil(PARTS))
}

/// The number of bytes that the first `parts` parts have.
fn offset(parts: usize, part: u64, size: u64) -> u64 {
    (parts as u64).saturating_mul(part).min(size)
}

/// The document that completes an upload.
fn list(etags: &[String]) -> Vec<u8> {
    let parts = etags.iter().enumerate().map(|(at, etag)| {
        let etag = etag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", at + 1)
    });
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>()).into_bytes()
}

/// An upload of one blob.
pub struct Upload<'a> {
    pub objects: Objects<'a>,
    pub key: &'a str,
    pub incoming: &'a Incoming,
}

impl Upload<'_> {
    /// The next step. The first call has neither a state nor an outcome.
    pub fn next(&self, state: Option<&[u8]>, last: Option<Outcome>) -> Result<NextStep, Error> {
        if !self.incoming.sized {
            return Err(Error::Unsupported(
                "store a blob whose size is not known: a bucket wants it ahead".into(),
            ));
        }
        let Some(state) = state else {
            return if self.incoming.absent { self.begin() } else { self.look() };
        };
        // The state may be that of an earlier version of this plugin: then the store is asked anew.
        let Ok(state) = serde_json::from_slice(state) else { return self.look() };
        match (state, last) {
            (State::Asked, Some(Outcome::Response(response))) => self.looked(&response),
            (State::Whole, Some(Outcome::Response(_))) => finished(Arrival::Stored),
            (State::Begun(part), Some(Outcome::Response(response))) => {
                let none = || Error::Transient("begin an upload: the answer names none".into());
                let id = element(&response.body, "UploadId").filter(|id| !id.is_empty()).ok_or_else(none)?;
                self.part(id, part, Vec::new())
            }
            // The upload was aborted, as by a rule of the bucket; or it was completed, and the answer was lost.
            (State::Parts { .. } | State::Completed { .. }, Some(Outcome::Response(response)))
                if response.status == 404 =>
            {
                self.look()
            }
            // A part is not there any more (`InvalidPart`).
            (State::Completed { .. }, Some(Outcome::Response(response))) if response.status == 400 => {
                self.begin()
            }
            (State::Parts { id, part, mut etags }, Some(Outcome::Response(response))) => {
                let none = || Error::Transient("send a part: the answer has no ETag".into());
                etags.push(header(&response, "etag").ok_or_else(none)?.to_owned());
                self.part(id, part, etags)
            }
            // An error may come with the status 200, because the store begins to answer before it is done.
            (State::Completed { .. }, Some(Outcome::Response(response))) => {
                let body = String::from_utf8_lossy(&response.body);
                if body.contains("CompleteMultipartUploadResult") {
                    return finished(Arrival::Stored);
                }
                let code = element(&response.body, "Code");
                let said = code.as_deref().unwrap_or("nothing of the object that it made");
                Err(Error::Transient(format!("complete an upload: the store says {said}")))
            }
            // What was interrupted is sent again: a part replaces what is there of it.
            (State::Parts { id, part, etags } | State::Completed { id, part, etags }, _) => {
                self.part(id, part, etags)
            }
            (State::Asked | State::Whole | State::Begun(_), _) => self.look(),
        }
    }

    fn step(&self, step: Step, state: &State) -> Result<NextStep, Error> {
        let state = serde_json::to_vec(state).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(NextStep { step, state })
    }

    fn look(&self) -> Result<NextStep, Error> {
        // 403 is the answer about a missing object to whoever may not list the bucket.
        let request = self.objects.request("HEAD", self.key, "", &[200, 403, 404])?;
        self.step(ask(request), &State::Asked)
    }

    fn looked(&self, response: &Response) -> Result<NextStep, Error> {
        let size = header(response, "content-length").and_then(|size| size.parse().ok());
        match response.status == 200 && size == Some(self.incoming.blob.size) {
            true => finished(Arrival::Present),
            false => self.begin(),
        }
    }

    fn begin(&self) -> Result<NextStep, Error> {
        let size = self.incoming.blob.size;
        let part = part_size(size, self.incoming.piece);
        if size <= part {
            let request = self.objects.request("PUT", self.key, "", &[200])?;
            let sending = Sending { request, offset: 0, length: None };
            return self.step(Step::Send(sending), &State::Whole);
        }
        let request = self.objects.request("POST", self.key, "?uploads=", &[200])?;
        self.step(ask(request), &State::Begun(part))
    }

    /// Sends the part after those that are there, or completes the upload.
    fn part(&self, id: String, part: u64, etags: Vec<String>) -> Result<NextStep, Error> {
        let size = self.incoming.blob.size;
        let at = offset(etags.len(), part, size);
        let named = encoded(&id);
        if at >= size {
            let request =
                self.objects.request("POST", self.key, &format!("?uploadId={named}"), &[200, 400, 404])?;
            let asking = Asking { request, body: list(&etags) };
            return self.step(Step::Ask(asking), &State::Completed { id, part, etags });
        }
        let query = format!("?partNumber={}&uploadId={named}", etags.len() + 1);
        let request = self.objects.request("PUT", self.key, &query, &[200, 404])?;
        let sending = Sending { request, offset: at, length: Some(part.min(size - at)) };
        self.step(Step::Send(sending), &State::Parts { id, part, etags })
    }
}

fn finished(arrival: Arrival) -> Result<NextStep, Error> {
    Ok(NextStep { step: Step::Finished(arrival), state: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_one_size_and_not_too_many() {
        const MIB: u64 = 1 << 20;
        for (size, piece, expected) in [
            (65 * MIB, None, 64 * MIB),
            (65 * MIB, Some(1), 16 * MIB),
            (65 * MIB, Some(20 * MIB), 20 * MIB),
            (800 * 64 * MIB + 1, Some(5 * MIB), 64 * MIB + 1),
        ] {
            let part = part_size(size, piece);
            assert_eq!(part, expected, "{size} {piece:?}");
            assert!(size.div_ceil(part) <= PARTS);
        }
        assert_eq!((offset(0, 5, 12), offset(2, 5, 12), offset(3, 5, 12)), (0, 10, 12));
    }

    #[test]
    fn the_state_of_the_largest_upload_fits() {
        let state = State::Parts {
            id: "x".repeat(1024),
            part: 1,
            etags: vec!["\"0123456789abcdef0123456789abcdef-1\"".into(); PARTS as usize],
        };
        assert!(serde_json::to_vec(&state).unwrap().len() < 64 << 10);
    }

    #[test]
    fn the_list_of_parts_is_well_formed() {
        let text = String::from_utf8(list(&["\"a\"".into(), "b<".into()])).unwrap();
        let expected = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag></Part>\
                        <Part><PartNumber>2</PartNumber><ETag>b&lt;</ETag></Part></CompleteMultipartUpload>";
        assert_eq!(text, expected);
    }
}
