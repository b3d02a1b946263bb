//! A policy's table as kernel filters.
//! Trusts: seccompiler's code generation; the self-check tries the result.
//! Touches: the filters of this process.
//! Next: [`super::process`] applies them last, after landlock.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::policy::{Allowed, Condition, Policy, When};

/// A policy, compiled. Applied, it cannot be taken off.
#[derive(Debug)]
pub struct Filters {
    /// In the order in which they are applied. The filter that kills comes last, because each application is itself a system call.
    programs: Vec<BpfProgram>,
}

/// Why a policy could not be compiled or applied.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// seccompiler does not know the processor.
    #[error("there are no system call filters for this processor")]
    Processor(#[source] BackendError),
    /// The table cannot be made a filter.
    #[error("the system call table of {policy} cannot be compiled")]
    Compile {
        /// Whose.
        policy: &'static str,
        /// Why.
        #[source]
        source: BackendError,
    },
    /// The kernel refused the filter.
    #[error("the kernel refused a system call filter; it must be built with CONFIG_SECCOMP_FILTER")]
    Apply(#[source] seccompiler::Error),
}

impl Filters {
    /// Compiles a table.
    ///
    /// # Errors
    /// `Processor` or `Compile`.
    pub fn compile(policy: &Policy) -> Result<Self, SeccompError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(SeccompError::Processor)?;
        let compiled = |rules, otherwise, when_listed| {
            SeccompFilter::new(rules, otherwise, when_listed, arch)
                .and_then(BpfProgram::try_from)
                .map_err(|source| SeccompError::Compile { policy: policy.name, source })
        };
        // One filter has one answer for what it lists. The kernel takes the strictest answer of all filters, so what is refused
        // with an error is let through by the filter that kills.
        let mut errors: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
        let mut allowed = rules(policy).map_err(|source| SeccompError::Compile { policy: policy.name, source })?;
        for refused in policy.refused {
            errors.entry(refused.errno).or_default().insert(refused.call, Vec::new());
            allowed.insert(refused.call, Vec::new());
        }
        let mut programs = Vec::new();
        for (errno, calls) in errors {
            programs.push(compiled(calls, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()))?);
        }
        programs.push(compiled(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?);
        Ok(Self { programs })
    }

    /// Puts this process under them, for good. Sets `no_new_privs`.
    ///
    /// # Errors
    /// `Apply`.
    pub fn apply(&self) -> Result<(), SeccompError> {
        self.programs.iter().try_for_each(|program| seccompiler::apply_filter(program)).map_err(SeccompError::Apply)
    }
}

/// A call without rules is allowed whatever its arguments; one with rules, when any of them holds.
fn rules(policy: &Policy) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let lines = || policy.allowed.iter().copied().flatten();
    for line in lines() {
        let chain = calls.entry(line.call).or_default();
        if let When::All(conditions) = line.when {
            chain.push(rule(conditions)?);
        }
    }
    for Allowed { call, .. } in lines().filter(|line| matches!(line.when, When::Always)) {
        calls.insert(*call, Vec::new());
    }
    Ok(calls)
}

fn rule(conditions: &[Condition]) -> Result<SeccompRule, BackendError> {
    let conditions: Result<Vec<SeccompCondition>, BackendError> = conditions
        .iter()
        .map(|condition| {
            let (argument, operator, value) = match *condition {
                Condition::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
                Condition::Bits(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(u64::from(mask)), value),
            };
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value))
        })
        .collect();
    SeccompRule::new(conditions?)
}
