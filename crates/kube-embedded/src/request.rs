//! What a request asks for: its path and its query.

use percent_encoding::percent_decode_str;

use crate::error::{ApiError, ApiResult, Cause};

/// A path below `/api/v1` or `/apis/G/V` that names a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for cluster-scoped resources and for lists over all namespaces.
    pub(crate) namespace: String,
    pub(crate) plural: String,
    /// Empty for the collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// The old `/watch/` prefix.
    pub(crate) watch: bool,
}

impl Target {
    /// Reads the path; `None` if it does not name a resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let decoded: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().map(Into::into))
            .collect::<Result<_, _>>()
            .ok()?;
        let mut parts: &[String] = &decoded;
        let (group, version) = match parts {
            [api, version, rest @ ..] if api == "api" => {
                parts = rest;
                (String::new(), version.clone())
            }
            [apis, group, version, rest @ ..] if apis == "apis" => {
                parts = rest;
                (group.clone(), version.clone())
            }
            _ => return None,
        };
        let mut watch = false;
        if let [first, rest @ ..] = parts
            && first == "watch"
        {
            watch = true;
            parts = rest;
        }
        let text = |part: Option<&String>| part.cloned().unwrap_or_default();
        let target = |namespace: &str, rest: &[String]| {
            (!rest.is_empty() && rest.len() <= 3).then(|| Self {
                group: group.clone(),
                version: version.clone(),
                namespace: namespace.to_owned(),
                plural: rest[0].clone(),
                name: text(rest.get(1)),
                subresource: text(rest.get(2)),
                watch,
            })
        };
        match parts {
            // `/namespaces/x/status` and `/finalize` belong to the namespace, anything else below it to what is in it.
            [first, namespace, sub] if first == "namespaces" && (sub == "status" || sub == "finalize") => {
                target("", &["namespaces".to_owned(), namespace.clone(), sub.clone()])
            }
            [first, namespace, rest @ ..] if first == "namespaces" && !rest.is_empty() => target(namespace, rest),
            rest => target("", rest),
        }
    }
}

/// The query as pairs, later ones win; unknown names are ignored as the real server does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        Self(
            text.unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value unless it is empty.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Go's reading of a boolean parameter: present and neither `false` nor `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "false" | "0" | "f" | "F" | "False" | "FALSE"))
    }

    /// A signed number; an empty value is absent.
    pub(crate) fn number(&self, name: &str) -> ApiResult<Option<i64>> {
        match self.text(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }

    /// Whether `dryRun=All` is given; any other value is 422 on `kind`.
    pub(crate) fn dry_run(&self, kind: &'static str) -> ApiResult<bool> {
        let mut dry = false;
        for value in self.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                let cause = Cause::new(
                    "FieldValueNotSupported",
                    "dryRun",
                    format!("Unsupported value: [{value:?}]: supported values: \"All\""),
                );
                return Err(ApiError::invalid_options(kind, &[cause]));
            }
            dry = true;
        }
        Ok(dry)
    }

    /// What happens to unknown and duplicate fields.
    pub(crate) fn field_validation(&self, kind: &'static str) -> ApiResult<FieldValidation> {
        match self.text("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(ApiError::invalid_options(
                kind,
                &[Cause::new(
                    "FieldValueNotSupported",
                    "fieldValidation",
                    format!("Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""),
                )],
            )),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_targets() {
        let target = Target::parse("/apis/berth.dev/v1/namespaces/berth/workspaces/a%2Db/status").unwrap();
        assert_eq!(
            (&*target.group, &*target.namespace, &*target.name, &*target.subresource),
            ("berth.dev", "berth", "a-b", "status")
        );
        let namespace = Target::parse("/api/v1/namespaces/x").unwrap();
        assert_eq!((&*namespace.plural, &*namespace.name, &*namespace.namespace), ("namespaces", "x", ""));
        let finalize = Target::parse("/api/v1/namespaces/x/finalize").unwrap();
        assert_eq!((&*finalize.plural, &*finalize.subresource), ("namespaces", "finalize"));
        let pods = Target::parse("/api/v1/namespaces/x/pods").unwrap();
        assert_eq!((&*pods.plural, &*pods.namespace, &*pods.name), ("pods", "x", ""));
        assert!(Target::parse("/api/v1").is_none());
    }

    #[test]
    fn queries_decode_and_the_last_value_wins() {
        let query = Query::parse(Some("&labelSelector=a%3Db%2Cc&watch=1&limit=&dryRun=All"));
        assert_eq!(query.text("labelSelector"), "a=b,c");
        assert!(query.flag("watch") && !query.flag("pretty"));
        assert_eq!(query.number("limit").unwrap(), None);
        assert!(query.dry_run("CreateOptions").unwrap());
    }
}
