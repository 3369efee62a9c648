//! AWS Signature Version 4, as a client's headers carry it.

use crate::{Request, Scheme};

/// What stands for the hash of a body that is not signed, in requests to S3.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs a request, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Amazon<'a> {
    /// The identifier of the keys.
    pub id: &'a str,
    /// The secret of the keys.
    pub secret: &'a str,
    /// The token of a session. `None` means that the keys are those of an account itself.
    pub token: Option<&'a str>,
    /// The region, such as `eu-west-1`.
    pub region: &'a str,
    /// The service, as signatures name it: `ecr`, `s3`.
    pub service: &'a str,
    /// `host[:port]` of the request.
    pub host: &'a str,
}

impl Amazon<'_> {
    /// The headers that are to be added to those that the request has. Of its own, `content-type` and all of `x-amz-…` are
    /// signed. `query` may be in any order. `body` is the hash of the body, or [`UNSIGNED`], and `time` that of now, as
    /// `20150830T123600Z`.
    ///
    /// ```
    /// # use dray_plugin_sign::{Amazon, EMPTY};
    /// let keys = Amazon { id: "AKIDEXAMPLE", secret: "s", token: None, region: "us-east-1", service: "s3", host: "b.example" };
    /// let added = keys.headers(("GET", "/key", ""), &[], EMPTY, "20150830T123600Z");
    /// assert_eq!(added[0].0, "x-amz-date");
    /// ```
    pub fn headers(
        &self,
        (method, path, query): (&str, &str, &str),
        own: &[(String, String)],
        body: &str,
        time: &str,
    ) -> Vec<(String, String)> {
        let mut added = vec![("x-amz-date", time.to_owned())];
        added.extend(self.token.map(|token| ("x-amz-security-token", token.to_owned())));
        let mut headers: Vec<(String, String)> = own
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .filter(|(name, _)| name == "content-type" || name.starts_with("x-amz-"))
            .chain(added.iter().map(|(name, value)| ((*name).to_owned(), value.clone())))
            .chain([("host".to_owned(), self.host.to_owned())])
            .collect();
        headers.sort();
        let headers: Vec<(&str, String)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let scope = [time.get(..8).unwrap_or(time), self.region, self.service, "aws4_request"];
        let scheme =
            Scheme { algorithm: "AWS4-HMAC-SHA256", time: Some(time), prefix: "AWS4", scope: &scope };
        let query = sorted(query);
        let request = Request { method, path, query: &query, headers: &headers, body };
        let signature = scheme.sign(self.secret, &request);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
            self.id, signature.scope, signature.headers, signature.signature
        );
        let added = added.into_iter().map(|(name, value)| (name.to_owned(), value));
        added.chain([("authorization".to_owned(), authorization)]).collect()
    }
}

/// A query as signatures have it: sorted, and each name with an equals sign.
fn sorted(query: &str) -> String {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let mut parts: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    parts.sort_unstable();
    let parts: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EMPTY;

    #[test]
    fn queries_are_brought_into_one_order() {
        for (given, expected) in [
            ("", ""),
            ("uploads", "uploads="),
            ("uploadId=x&partNumber=1", "partNumber=1&uploadId=x"),
            ("a=2&a=1&b", "a=1&a=2&b="),
        ] {
            assert_eq!(sorted(given), expected);
        }
    }

    /// The example "GET Bucket (List Objects)" of Amazon's documents of S3 ("Signature Calculations for the Authorization
    /// Header").
    #[test]
    fn a_published_request_is_signed_as_amazon_says() {
        let keys = Amazon {
            id: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            token: None,
            region: "us-east-1",
            service: "s3",
            host: "examplebucket.s3.amazonaws.com",
        };
        let own = [("X-Amz-Content-Sha256".to_owned(), EMPTY.to_owned())];
        let query = "prefix=J&max-keys=2";
        let added = keys.headers(("GET", "/", query), &own, EMPTY, "20130524T000000Z");
        let (name, value) = added.last().unwrap();
        assert_eq!(name, "authorization");
        assert!(
            value.ends_with("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            "{value}"
        );
    }
}
