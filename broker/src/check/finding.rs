//! What a check found: takes a place, what was expected and what to do; gives a line or JSON.

use std::fmt;

use serde::Serialize;

use super::node::Node;

/// One thing that a check found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Where, as in `static_resources.listeners[0]`.
    pub path: String,
    /// How bad it is.
    pub severity: Severity,
    /// The check that found it.
    pub check: &'static str,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do, or why it matters.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A promise does not hold.
    Error,
    /// Hardly meant, or out of this check's sight.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            severity,
            check,
            expected,
            found,
            advice,
        } = self;
        write!(
            f,
            "{path}: {severity}[{check}]: expected {expected}, found {found}; {advice}"
        )
    }
}

/// Everything that was found, in the order of the checks.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// One entry a finding.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings have this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// The core's error about the document: path, expected and found are in its text.
    pub(super) fn refused_policy(&mut self, error: &impl ToString) {
        self.push_policy(
            Severity::Error,
            error.to_string(),
            "nothing else was checked",
        );
    }

    pub(super) fn warn_about_policy(&mut self, warnings: &[String]) {
        for warning in warnings {
            self.push_policy(
                Severity::Warning,
                warning.clone(),
                "allowed, but hardly meant",
            );
        }
    }

    fn push_policy(&mut self, severity: Severity, found: String, advice: &str) {
        self.findings.push(Finding {
            path: "policy".to_owned(),
            severity,
            check: "policy",
            expected: "a sound policy document".to_owned(),
            found,
            advice: advice.to_owned(),
        });
    }

    /// Where a check reports to.
    pub(super) const fn of(&mut self, check: &'static str) -> Findings<'_> {
        Findings {
            check,
            report: self,
        }
    }
}

/// Where one check reports to.
pub(super) struct Findings<'a> {
    check: &'static str,
    report: &'a mut Report,
}

impl Findings<'_> {
    /// A promise does not hold because of what stands, or does not stand, at `node`.
    pub(super) fn error(&mut self, node: &Node<'_>, expected: impl Into<String>, advice: &str) {
        self.push(Severity::Error, node, expected.into(), node.shown(), advice);
    }

    /// The same, where what was found needs words of its own.
    pub(super) fn error_found(
        &mut self,
        node: &Node<'_>,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: &str,
    ) {
        self.push(Severity::Error, node, expected.into(), found.into(), advice);
    }

    /// What stands at `node` is hardly meant, or can't be judged.
    pub(super) fn warning(
        &mut self,
        node: &Node<'_>,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: &str,
    ) {
        self.push(
            Severity::Warning,
            node,
            expected.into(),
            found.into(),
            advice,
        );
    }

    fn push(
        &mut self,
        severity: Severity,
        node: &Node<'_>,
        expected: String,
        found: String,
        advice: &str,
    ) {
        self.report.findings.push(Finding {
            path: node.path().to_owned(),
            severity,
            check: self.check,
            expected,
            found,
            advice: advice.to_owned(),
        });
    }
}
