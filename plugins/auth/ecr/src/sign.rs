//! Signature Version 4 (AWS Signature Version 4 for API requests, "Create a signed request").

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Keys of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// A request that is to be signed. Its headers are in lower case, and sorted.
pub struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, String)],
    pub body: &'a [u8],
    pub region: &'a str,
    pub service: &'a str,
    /// `20150830T123600Z`
    pub time: &'a str,
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of HMAC may have any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

impl Signed<'_> {
    /// The value of the `Authorization` header.
    pub fn authorization(&self, keys: &Keys) -> String {
        let date = self.time.get(..8).unwrap_or(self.time);
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let body = hex::encode(Sha256::digest(self.body));
        let request = format!("{}\n{}\n\n{headers}\n{names}\n{body}", self.method, self.path);
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let request = hex::encode(Sha256::digest(request));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{request}", self.time);
        let key = mac(format!("AWS4{}", keys.secret).as_bytes(), date);
        let key = [self.region, self.service, "aws4_request"].iter().fold(key, |key, part| mac(&key, part));
        let signature = hex::encode(mac(&key, &text));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.id
        )
    }
}

/// A time in milliseconds since 1970 as the signature has it.
pub fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, date) =
        (if shifted < 10 { shifted + 3 } else { shifted - 9 }, of_year - (153 * shifted + 2) / 5 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{date:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request `get-vanilla` of Amazon's test suite for signatures.
    #[test]
    fn the_published_vector_is_signed_as_it_says() {
        let keys = Keys {
            id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        };
        let headers =
            [("host", "example.amazonaws.com".to_owned()), ("x-amz-date", "20150830T123600Z".to_owned())];
        let signed = Signed {
            method: "GET",
            path: "/",
            headers: &headers,
            body: b"",
            region: "us-east-1",
            service: "service",
            time: "20150830T123600Z",
        };
        assert_eq!(
            signed.authorization(&keys),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "19700101T000000Z");
        assert_eq!(time(1_440_938_160_000), "20150830T123600Z");
        assert_eq!(time(951_827_696_000), "20000229T123456Z");
    }
}
