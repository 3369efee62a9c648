//! Checks requests and answers against the published descriptions of APIs in `../descriptions`.

use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

/// An API in OpenAPI 2.0.
pub struct Swagger(Value);

pub static HARBOR: LazyLock<Swagger> =
    LazyLock::new(|| Swagger(serde_json::from_str(include_str!("../descriptions/harbor.json")).unwrap()));

/// What the description says of one request.
pub struct Operation<'a> {
    is_head: bool,
    described: &'a Value,
    definitions: &'a Value,
}

impl Swagger {
    /// The operation that a path is of, if the description has it. The path is without the base path and the query, and has
    /// its components as they were sent.
    pub fn operation(&self, method: &str, path: &str) -> Option<Operation<'_>> {
        let parts: Vec<&str> = path.split('/').collect();
        let is = |template: &str| {
            let wanted: Vec<&str> = template.split('/').collect();
            let matches = |(wanted, part): (&&str, &&str)| wanted.starts_with('{') || wanted == part;
            wanted.len() == parts.len() && wanted.iter().zip(&parts).all(matches)
        };
        let paths = self.0["paths"].as_object().unwrap();
        let described = paths.iter().find(|(template, _)| is(template))?.1.get(method.to_lowercase())?;
        Some(Operation { is_head: method == "HEAD", described, definitions: &self.0["definitions"] })
    }
}

impl Operation<'_> {
    fn parameters(&self, place: &str) -> impl Iterator<Item = &Value> {
        let place = place.to_owned();
        self.described["parameters"].as_array().unwrap().iter().filter(move |one| one["in"] == place.as_str())
    }

    /// Why a request is not as the description has it.
    pub fn refuses(&self, query: &BTreeMap<&str, String>, body: &[u8]) -> Option<String> {
        for (name, value) in query {
            let Some(known) = self.parameters("query").find(|known| known["name"] == *name) else {
                return Some(format!("the query has {name}, which is not described"));
            };
            let is_right = match known["type"].as_str().unwrap() {
                "integer" => value
                    .parse::<u64>()
                    .is_ok_and(|value| known["maximum"].as_u64().is_none_or(|maximum| value <= maximum)),
                "boolean" => matches!(value.as_str(), "true" | "false"),
                _ => true,
            };
            if !is_right {
                return Some(format!("{name} is {value}"));
            }
        }
        let missing = self
            .parameters("query")
            .find(|known| known["required"] == true && !query.contains_key(known["name"].as_str().unwrap()));
        if let Some(missing) = missing {
            return Some(format!("the query lacks {}", missing["name"]));
        }
        match self.parameters("body").next() {
            Some(described) => {
                let body: Value = serde_json::from_slice(body).unwrap_or_default();
                // Harbor itself passes over keys that it does not know, but dray is to send none.
                let known =
                    self.definitions[reference(&described["schema"])]["properties"].as_object().unwrap();
                let unknown = body.as_object()?.keys().find(|key| !known.contains_key(*key)).cloned();
                unknown.or_else(|| self.violation(&described["schema"], &body))
            }
            None if body.is_empty() => None,
            None => Some("there is a body, and none is described".into()),
        }
    }

    /// Checks an answer of the fake itself.
    pub fn check(&self, status: &str, body: &[u8]) {
        let code = status.split(' ').next().unwrap();
        let described = &self.described["responses"][code];
        assert!(!described.is_null(), "{} is not described with {code}", self.described["operationId"]);
        let schema = described.get("schema").filter(|schema| schema["type"] != "string");
        // An answer to `HEAD` has no body.
        let Some(schema) = schema.filter(|_| !self.is_head) else { return };
        let body: Value = serde_json::from_slice(body).unwrap();
        if let Some(why) = self.violation(schema, &body) {
            panic!("{}: {why}: {body}", self.described["operationId"]);
        }
    }

    fn violation(&self, schema: &Value, value: &Value) -> Option<String> {
        let whole = json!({ "allOf": [schema], "definitions": self.definitions });
        let validator = jsonschema::validator_for(&whole).unwrap();
        validator.iter_errors(value).next().map(|error| error.to_string())
    }
}

fn reference(schema: &Value) -> &str {
    schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap()
}

/// An API of Amazon's, as botocore describes it.
pub struct Service(Value);

pub static ECR: LazyLock<Service> =
    LazyLock::new(|| Service(serde_json::from_str(include_str!("../descriptions/ecr.json")).unwrap()));

impl Service {
    /// Why the input of an operation is not as the description has it.
    pub fn refuses(&self, operation: &str, input: &Value) -> Option<String> {
        let described = &self.0["operations"][operation];
        match described["input"]["shape"].as_str() {
            Some(shape) => self.violation(shape, input),
            None => Some(format!("there is no operation {operation}")),
        }
    }

    /// Checks an answer of the fake itself.
    pub fn check(&self, operation: &str, output: &Value) {
        let shape = self.0["operations"][operation]["output"]["shape"].as_str().unwrap();
        assert_eq!(self.violation(shape, output), None, "{operation}: {output}");
    }

    fn violation(&self, shape: &str, value: &Value) -> Option<String> {
        let described = &self.0["shapes"][shape];
        let wrong = || Some(format!("{shape} is {value}"));
        let within = |number: u64| {
            described["min"].as_u64().is_none_or(|least| number >= least)
                && described["max"].as_u64().is_none_or(|most| number <= most)
        };
        match described["type"].as_str().unwrap() {
            "structure" => {
                let Some(value) = value.as_object() else { return wrong() };
                let members = described["members"].as_object().unwrap();
                let required = described["required"].as_array().into_iter().flatten();
                if let Some(missing) =
                    required.map(|name| name.as_str().unwrap()).find(|name| !value.contains_key(*name))
                {
                    return Some(format!("{shape} lacks {missing}"));
                }
                value.iter().find_map(|(name, value)| match members.get(name) {
                    Some(member) => self.violation(member["shape"].as_str().unwrap(), value),
                    None => Some(format!("{shape} has no {name}")),
                })
            }
            "list" => {
                let Some(value) = value.as_array().filter(|list| within(list.len() as u64)) else {
                    return wrong();
                };
                let member = described["member"]["shape"].as_str().unwrap();
                value.iter().find_map(|value| self.violation(member, value))
            }
            "map" => {
                let Some(value) = value.as_object() else { return wrong() };
                let member = described["value"]["shape"].as_str().unwrap();
                value.values().find_map(|value| self.violation(member, value))
            }
            "string" => {
                let Some(text) = value.as_str().filter(|text| within(text.len() as u64)) else {
                    return wrong();
                };
                let choices = described["enum"].as_array();
                if choices.is_some_and(|choices| !choices.iter().any(|choice| choice == text)) {
                    return wrong();
                }
                let pattern = described["pattern"].as_str()?;
                let schema = json!({ "pattern": format!("^(?:{pattern})$") });
                (!jsonschema::is_valid(&schema, value)).then(|| format!("{shape} is {value}"))
            }
            "integer" | "long" => match value.as_u64().filter(|number| within(*number)) {
                Some(_) => None,
                None => wrong(),
            },
            "timestamp" | "double" | "float" => {
                if value.is_number() {
                    None
                } else {
                    wrong()
                }
            }
            "boolean" => {
                if value.is_boolean() {
                    None
                } else {
                    wrong()
                }
            }
            other => panic!("shapes of the type {other} are not known"),
        }
    }
}
