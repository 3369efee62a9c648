//! A plan in a file. It consists of lines of JSON, so that a plan of a million copies is written and read in little
//! memory. The first line is a [`PlanHeader`], and each further line is an item. The last line is a [`PlanEnd`]: if it
//! is missing, the file was cut off. `docs/plan.schema.json` describes the lines. Endpoints name places and hold no
//! credentials.

use super::{Action, Copy, Deletion};
use serde::{Deserialize, Serialize};

/// Version of the format. A plan of any other version is refused.
pub const PLAN_VERSION: u32 = 1;

/// Size limit of one line in bytes. A longer line cannot belong to a plan.
pub const MAX_LINE: usize = 1 << 20;

/// The policy from which a plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyId {
    /// Absolute path of the file.
    pub path: String,
    /// SHA-256 digest of its text. A plan is valid for exactly this policy.
    pub digest: crate::Digest,
}

/// The first line of a saved plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanHeader {
    /// Version of the format, see [`PLAN_VERSION`].
    pub dray_plan: u32,
    /// Version of the dray that made the plan.
    pub made_by: String,
    /// When the plan was made, in seconds since 1970-01-01T00:00:00Z.
    pub made_at: i64,
    /// The policy from which the plan was made.
    pub policy: PolicyId,
}

/// The last line of a saved plan: how many tags of each kind there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanEnd {
    /// Number of copies in the file.
    pub copies: u64,
    /// Number of deletions in the file.
    #[serde(default, skip_serializing_if = "is_none")]
    pub deletions: u64,
    /// Number of tags for which nothing has to be done. The file does not list them.
    pub unchanged: u64,
    /// Number of tags that filters dropped. The file does not list them.
    pub dropped: u64,
    /// Number of failures while planning. The file does not list them.
    pub failed: u64,
    /// The rules of which something failed, sorted. Nothing is deleted for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_rules: Vec<String>,
}

/// Leaves a count of none out, so that plans without deletions are as they always were.
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// A line of a saved plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanLine {
    /// The first line.
    Plan(PlanHeader),
    /// An item.
    Copy(Box<Copy>),
    /// A deletion.
    Delete(Box<Deletion>),
    /// The last line.
    End(PlanEnd),
}

/// The text is not a line of a plan that this dray can apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadPlanError {
    /// The text is not JSON, or not one of the lines of a plan.
    #[error("{0}")]
    Malformed(String),
    /// A dray with another version of the format wrote the plan.
    #[error("its format has version {0}, and this dray reads version {PLAN_VERSION}")]
    Version(u32),
    /// The item has another action than a copy. Only copies can be applied.
    #[error("it holds an item that is no copy")]
    Action,
}

impl PlanLine {
    /// Reads a line.
    ///
    /// # Errors
    /// Fails if the line is malformed, or is the header of another version.
    pub fn parse(line: &str) -> Result<Self, ReadPlanError> {
        /// The part of the header that is the same in every version.
        #[derive(Deserialize)]
        struct Versioned {
            plan: Option<Header>,
        }
        #[derive(Deserialize)]
        struct Header {
            dray_plan: u32,
        }
        if let Ok(Versioned { plan: Some(Header { dray_plan }) }) = serde_json::from_str(line)
            && dray_plan != PLAN_VERSION
        {
            return Err(ReadPlanError::Version(dray_plan));
        }
        let line: PlanLine =
            serde_json::from_str(line).map_err(|error| ReadPlanError::Malformed(error.to_string()))?;
        match &line {
            PlanLine::Copy(copy) if copy.action != Action::Copy => Err(ReadPlanError::Action),
            _ => Ok(line),
        }
    }

    /// The line as it is written, without the line break.
    pub fn written(&self) -> String {
        // It consists of strings, numbers and lists, which always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The fields of a descriptor that a plan keeps.
pub(super) mod content {
    use crate::{Descriptor, Digest};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Content {
        media_type: String,
        digest: Digest,
        size: u64,
    }

    pub fn serialize<S: Serializer>(descriptor: &Descriptor, serializer: S) -> Result<S::Ok, S::Error> {
        let Descriptor { media_type, digest, size, .. } = descriptor;
        Content { media_type: media_type.clone(), digest: digest.clone(), size: *size }.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Descriptor, D::Error> {
        let Content { media_type, digest, size } = Content::deserialize(deserializer)?;
        Ok(Descriptor::new(media_type, digest, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Descriptor, DestinationState, Digest, Endpoint, Form, ImageChoice, Naming, Reason, Seen, Wanted,
        policy::{IndexMode, Referrers},
    };

    fn copy() -> Copy {
        let end = |name: &str| Endpoint {
            place: format!("docker:{name}"),
            repository: "app".into(),
            reference: Some("v1".into()),
            display: format!("docker://{name}/app:v1"),
        };
        Copy {
            pinned: None,
            rule: "r".into(),
            source: end("a.example"),
            destination: end("b.example"),
            wanted: Wanted {
                choice: ImageChoice::Some(vec!["linux/amd64".parse().unwrap()], IndexMode::Trim),
                form: Form::default(),
                referrers: Referrers::Wanted,
                referrer_types: Vec::new(),
                cosign_tags: false,
                related: Vec::new(),
                on_change: crate::policy::OnChange::default(),
                include_foreign: false,
                strict: false,
                link: false,
                skip_immutable: false,
            },
            naming: Naming::Tag("v1".into()),
            descriptor: Descriptor::new(crate::media_type::OCI_INDEX, Digest::of(b"x"), 1),
            form: Form::default(),
            seen: Seen { source: Digest::of(b"y"), destination: DestinationState::Absent },
            action: Action::Copy,
            reason: Reason::New,
            backup: None,
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = PlanLine::Copy(Box::new(copy()));
        assert_eq!(PlanLine::parse(&line.written()).unwrap(), line);
        let Copy { rule, source, destination, .. } = copy();
        let digest = Digest::of(b"old");
        let deletion =
            Deletion { rule, source, destination, digest, backup: Some("{tag}-old".into()), unkept: false };
        let line = PlanLine::Delete(Box::new(deletion));
        assert_eq!(PlanLine::parse(&line.written()).unwrap(), line);
        let end = PlanLine::End(PlanEnd { copies: 1, ..PlanEnd::default() });
        assert_eq!(PlanLine::parse(&end.written()).unwrap(), end);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let header = r#"{"plan":{"dray_plan":2,"whatever":true}}"#;
        assert_eq!(PlanLine::parse(header), Err(ReadPlanError::Version(2)));
        let unchanged = PlanLine::Copy(Box::new(Copy { action: Action::Unchanged, ..copy() }));
        assert_eq!(PlanLine::parse(&unchanged.written()), Err(ReadPlanError::Action));
        let more =
            PlanLine::Copy(Box::new(copy())).written().replacen("{\"rule\"", "{\"more\":1,\"rule\"", 1);
        assert!(matches!(PlanLine::parse(&more), Err(ReadPlanError::Malformed(_))), "{more}");
    }

    #[test]
    fn a_destination_may_be_written_only_where_it_is_as_it_was() {
        use DestinationState::{Absent, Named, NoRepository, Untold};
        let (a, b) = (Named(Digest::of(b"a")), Named(Digest::of(b"b")));
        assert!(
            Absent.allows(&NoRepository) && a.allows(&a) && Untold("x".into()).allows(&Untold("y".into()))
        );
        for (before, now) in [(&Absent, &a), (&a, &b), (&a, &Absent), (&Untold("x".into()), &a)] {
            assert!(!before.allows(now), "{before:?} {now:?}");
        }
    }
}
