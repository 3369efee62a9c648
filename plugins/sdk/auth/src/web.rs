//! Requests of providers: to the service that gives tokens, or to a cloud's API.

use crate::{
    Error,
    dray::plugin::{http, types::Request},
};
use dray_plugin::{
    element, encoded,
    serde::de::DeserializeOwned,
    serde_json::{self, Value},
};

/// An answer with status 200 or 201.
#[derive(Clone, Debug)]
pub struct Asked {
    host: String,
    body: Vec<u8>,
}

/// A form (`application/x-www-form-urlencoded`).
pub fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// A host as it stands in requests: in lower case, and without the usual port.
pub fn host(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    text.strip_suffix(":443").map_or(text.clone(), str::to_owned)
}

/// Where services say what an error is called: Amazon, OAuth 2.0 (RFC 6749, 5.2), Google, Alibaba, Tencent, Volcengine.
const NAMES: [&str; 8] = [
    "/__type",
    "/error/status",
    "/error",
    "/Code",
    "/code",
    "/Response/Error/Code",
    "/ResponseMetadata/Error/Code",
    "/errors/0/code",
];

/// What an error answer is called. Nothing else of it is shown, because it may repeat what was signed.
fn refusal(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let named = json.as_ref().and_then(|json| NAMES.iter().find_map(|path| json.pointer(path)?.as_str()));
    let name = named.or_else(|| element(&text, "Code")).unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    match !name.is_empty() && name.len() <= 80 && name.bytes().all(is_name) {
        true => name.to_owned(),
        false => "it does not say why".into(),
    }
}

impl Asked {
    /// Sends a request to `https://{host}{path}`. What the host refuses is `unauthorized`.
    pub fn send(
        method: &str,
        host: &str,
        path: &str,
        headers: Vec<(String, String)>,
        body: &[u8],
    ) -> Result<Asked, Error> {
        let request = Request {
            extra: Vec::new(),
            method: method.into(),
            url: format!("https://{host}{path}"),
            headers,
            expect: vec![200, 201, 400, 401, 403, 404, 405],
            access: Vec::new(),
        };
        let response = http::send(&request, body)?;
        let asked = Asked { host: host.to_owned(), body: response.body };
        match response.status {
            200 | 201 => Ok(asked),
            status => {
                let why = refusal(&asked.body);
                Err(Error::Unauthorized(format!("get credentials: {host} answered {status}: {why}")))
            }
        }
    }

    /// Gets something.
    pub fn get(host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Asked, Error> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Asked::send("GET", host, path, headers.collect(), &[])
    }

    /// Sends a form.
    pub fn post_form(host: &str, path: &str, fields: &[(&str, &str)]) -> Result<Asked, Error> {
        let headers = vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        Asked::send("POST", host, path, headers, form(fields).as_bytes())
    }

    /// The error for an answer that is not what it should be.
    pub fn odd(&self, why: &str) -> Error {
        let Asked { host, .. } = self;
        Error::Invalid(format!("get credentials: {host} answered with something else ({why})"))
    }

    /// Its text.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.body).map_err(|_| self.odd("it is no text"))
    }

    /// Its JSON. Nothing of the answer is in the error, because it may hold secrets.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        // A service may refuse with status 200.
        let named = || match refusal(&self.body) {
            name if name.contains(' ') => self.odd("a field is missing, or of another kind"),
            name => Error::Unauthorized(format!("get credentials: {} answered {name}", self.host)),
        };
        serde_json::from_slice(&self.body).map_err(|_| named())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_only_called_by_its_name() {
        for (body, name) in [
            (
                r#"{"__type":"com.amazon#UnrecognizedClientException","message":"secret"}"#,
                "UnrecognizedClientException",
            ),
            ("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", "AccessDenied"),
            (r#"{"error":"invalid_grant","error_description":"secret"}"#, "invalid_grant"),
            (r#"{"error":{"code":403,"status":"PERMISSION_DENIED"}}"#, "PERMISSION_DENIED"),
            (
                r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure"}}}"#,
                "AuthFailure.SignatureFailure",
            ),
            (r#"{"__type":"x y"}"#, "it does not say why"),
            ("", "it does not say why"),
        ] {
            assert_eq!(refusal(body.as_bytes()), name, "{body}");
        }
    }

    #[test]
    fn forms_hosts_and_elements_are_as_their_standards_say() {
        assert_eq!(form(&[("a", "arn:aws/é"), ("b", "x y")]), "a=arn%3Aaws%2F%C3%A9&b=x%20y");
        assert_eq!(host("API.example.com:443"), "api.example.com");
        assert_eq!(host("api.example.com:8443"), "api.example.com:8443");
        assert_eq!(element("<a><AccessKeyId>x</AccessKeyId></a>", "AccessKeyId"), Some("x"));
    }
}
