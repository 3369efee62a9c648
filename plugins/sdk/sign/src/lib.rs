//! Signatures by which clouds recognise who asks their APIs. They are all of one kind: a request is brought into one form,
//! hashed, and authenticated (HMAC-SHA256) with a key that is derived from a secret. Amazon began with it (AWS Signature
//! Version 4), and Alibaba, Huawei, Tencent and Volcengine changed it a little each.

mod amazon;

pub use amazon::{Amazon, UNSIGNED};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// A request that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// The query without the question mark: sorted by its names, and percent-encoded (RFC 3986).
    pub query: &'a str,
    /// The headers that are signed, in lower case and sorted by their names.
    pub headers: &'a [(&'a str, String)],
    /// SHA-256 of the body, in hexadecimal digits. [`EMPTY`] is that of an empty one.
    pub body: &'a str,
}

/// SHA-256 of an empty body.
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// How one cloud signs.
#[derive(Clone, Copy, Debug)]
pub struct Scheme<'a> {
    /// The name of the algorithm, with which the signed text begins.
    pub algorithm: &'a str,
    /// The time of the signature as the signed text has it, on a line of its own. `None` means that it has none.
    pub time: Option<&'a str>,
    /// What precedes the secret in the first key.
    pub prefix: &'a str,
    /// From what the key is derived, one after the other. If it is empty, the secret is the key.
    pub scope: &'a [&'a str],
}

/// A signature, and what stands beside it in the `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// In hexadecimal digits.
    pub signature: String,
    /// The names of the signed headers, with semicolons between them.
    pub headers: String,
    /// The scope, with slashes.
    pub scope: String,
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// HMAC-SHA256 (RFC 2104).
pub fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of HMAC may have any length (RFC 2104, section 2).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

impl Scheme<'_> {
    /// Signs a request with a secret.
    ///
    /// ```
    /// # use dray_plugin_sign::{EMPTY, Request, Scheme};
    /// let scheme = Scheme { algorithm: "ACS3-HMAC-SHA256", time: None, prefix: "", scope: &[] };
    /// let headers = [("host", "cr.cn-shanghai.aliyuncs.com".to_owned())];
    /// let request = Request { method: "POST", path: "/", query: "", headers: &headers, body: EMPTY };
    /// assert_eq!(scheme.sign("secret", &request).headers, "host");
    /// ```
    pub fn sign(&self, secret: &str, request: &Request<'_>) -> Signature {
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String =
            request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let Request { method, path, query, body, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{body}");
        let scope = self.scope.join("/");
        let hash = sha256(canonical.as_bytes());
        let lines = [Some(self.algorithm), self.time, Some(scope.as_str()).filter(|scope| !scope.is_empty())];
        let text: String = lines.into_iter().flatten().map(|line| format!("{line}\n")).collect();
        let first = format!("{}{secret}", self.prefix).into_bytes();
        let key = self.scope.iter().fold(first, |key, part| mac(&key, part.as_bytes()));
        let signature = hex::encode(mac(&key, format!("{text}{hash}").as_bytes()));
        Signature { signature, headers: names, scope }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that the clouds publish: Amazon's test suite (`get-vanilla`), the documents of ACS3 and of TC3, the tests of
    /// Huawei's SDK, and Volcengine's documents.
    #[test]
    fn the_published_vectors_are_signed_as_they_say() {
        let tencent =
            br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
        let (tencent, volcengine) = (sha256(tencent), sha256(br#"{"Limit":10,"BillPeriod":"2023-08"}"#));
        let alibaba = [
            ("host", "ecs.cn-shanghai.aliyuncs.com"),
            ("x-acs-action", "RunInstances"),
            ("x-acs-content-sha256", EMPTY),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
            ("x-acs-version", "2014-05-26"),
        ];
        let scheme = |algorithm, time, prefix, scope| Scheme { algorithm, time: Some(time), prefix, scope };
        for (scheme, secret, (method, path, query), headers, body, expected) in [
            (
                scheme(
                    "AWS4-HMAC-SHA256",
                    "20150830T123600Z",
                    "AWS4",
                    &["20150830", "us-east-1", "service", "aws4_request"] as &[&str],
                ),
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                ("GET", "/", ""),
                &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")] as &[(&str, &str)],
                EMPTY,
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                Scheme { time: None, ..scheme("ACS3-HMAC-SHA256", "", "", &[]) },
                "YourAccessKeySecret",
                (
                    "POST",
                    "/",
                    "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai",
                ),
                &alibaba,
                EMPTY,
                "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0",
            ),
            (
                scheme("TC3-HMAC-SHA256", "1551113065", "TC3", &["2019-02-25", "cvm", "tc3_request"]),
                "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
                ("POST", "/", ""),
                &[("content-type", "application/json; charset=utf-8"), ("host", "cvm.tencentcloudapi.com")],
                &tencent,
                "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
            ),
            (
                scheme("SDK-HMAC-SHA256", "20060102T150405Z", "", &[]),
                "SecretKey",
                ("GET", "/path/", "limit=1"),
                &[("x-sdk-date", "20060102T150405Z")],
                EMPTY,
                "5a2ce64c865e0e6046321c6f3d5a77ba8413eeaf355c3166c03d58d02ac79624",
            ),
            (
                scheme(
                    "HMAC-SHA256",
                    "20250329T180937Z",
                    "",
                    &["20250329", "cn-beijing", "billing", "request"],
                ),
                "WkRZeE1EQmxPVGhsWWpWak5HVmtNbUUxTXpZeU9UVXlOMlE1TmpZeVlqTQ==",
                ("POST", "/", "Action=ListBill&Version=2022-01-01"),
                &[("host", "billing.volcengineapi.com"), ("x-date", "20250329T180937Z")],
                &volcengine,
                "5e8480ceea12d0000a23c054151c50dd02c1a7dec835004057d19f13d53a7658",
            ),
        ] {
            let headers: Vec<(&str, String)> =
                headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            let request = Request { method, path, query, headers: &headers, body };
            assert_eq!(scheme.sign(secret, &request).signature, expected, "{}", scheme.algorithm);
        }
    }
}
