//! `GET /metrics`: counters in the OpenMetrics text format. No label holds anything that a peer made up.
//! Trusts: the permit.
//! Touches: the machine's vitals.
//! Next: Prometheus.

use std::fmt;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::desk::Desk;
use super::health;
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::Api;
use super::vitals::Reading;
use crate::authz::action::ReadMetrics;
use crate::authz::permit::Permit;
use crate::ipc::worker::ChildExit;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    class: &'static str,
    route: String,
    status: u16,
}

/// What the API itself counts.
#[derive(Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    upload_bytes: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// `route` must be the matched pattern, never the path itself.
    pub(super) fn count_request(&self, class: &'static str, route: &str, status: u16) {
        self.requests.get_or_create(&RequestLabels { class, route: route.to_owned(), status }).inc();
    }

    pub(super) fn count_upload(&self, bytes: usize) {
        self.upload_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Everything, as text.
    fn text(&self, reading: Reading) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("salama");
        registry.register("requests", "Requests answered, by class, route and status", self.requests.clone());
        registry.register_with_unit("upload", "Recordings received", Unit::Bytes, self.upload_bytes.clone());
        registry.register_collector(Box::new(ReadingCollector(reading)));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Counters of the daemon and its processes.
#[utoipa::path(
    get, path = "/metrics", tag = "status",
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn metrics<D: Desk>(_permit: Permit<ReadMetrics>, State(api): State<Api<D>>) -> Result<Response, Problem> {
    let reading = health::read(&api).await?;
    let text = api.metrics().text(reading).map_err(|_| Problem::new(Kind::Internal, "The counters could not be written."))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

#[derive(Debug)]
struct ReadingCollector(Reading);

impl Collector for ReadingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reading = &self.0;
        let mut calls = encoder.encode_descriptor("calls", "Calls in the store, by state", None, MetricType::Gauge)?;
        for (state, count) in &reading.calls {
            calls.encode_family(&[("state", state.word())])?.encode_gauge(count)?;
        }
        encoder.encode_descriptor("queue", "Calls that wait", None, MetricType::Gauge)?.encode_gauge(&reading.queue)?;
        encoder
            .encode_descriptor("disk_free", "Free space for the store", Some(&Unit::Bytes), MetricType::Gauge)?
            .encode_gauge(&reading.disk_free)?;
        let ready = u64::from(reading.troubles.is_empty());
        encoder.encode_descriptor("ready", "1 when calls are taken", None, MetricType::Gauge)?.encode_gauge(&ready)?;
        if let Some(keeper) = reading.keeper {
            let mut uses = encoder.encode_descriptor("key_uses", "Uses of keys, by kind", None, MetricType::Counter)?;
            for (kind, count) in [
                ("new_dek", keeper.new_deks),
                ("unwrap_job", keeper.unwraps_job),
                ("unwrap_read", keeper.unwraps_read),
                ("tls_signature", keeper.tls_signatures),
                ("denied", keeper.denied),
                ("limited", keeper.limited),
                ("grant", keeper.grants),
            ] {
                uses.encode_family(&[("kind", kind)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
            encoder
                .encode_descriptor("key_incidents", "Incidents that the key keeper wrote down", None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, u64, u64>(&keeper.incidents, None)?;
        }
        let mut exits =
            encoder.encode_descriptor("child_exits", "Ends of worker children, by exit code or signal", None, MetricType::Counter)?;
        for (exit, count) in &reading.exits {
            exits.encode_family(&[("how", exit_word(*exit))])?.encode_counter::<NoLabelSet, u64, u64>(count, None)?;
        }
        let factor = &reading.real_time_factor;
        let mut buckets = factor.buckets.clone();
        let within: u64 = buckets.iter().map(|(_, count)| count).sum();
        buckets.push((f64::INFINITY, factor.count.saturating_sub(within)));
        encoder
            .encode_descriptor("real_time_factor", "Wall time of a finished call divided by its length", None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(factor.sum, factor.count, &buckets, None)
    }
}

fn exit_word(exit: ChildExit) -> String {
    match exit {
        ChildExit::Code(code) => format!("code_{code}"),
        ChildExit::Signal(signal) => format!("signal_{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::keeper::KeeperCounters;
    use crate::job::spec::CallState;
    use crate::job::tally::Distribution;

    #[test]
    fn every_counter_is_written() {
        let metrics = Metrics::new();
        metrics.count_request("read", "/api/v1/calls/{id}", 200);
        metrics.count_upload(4096);
        let reading = Reading {
            calls: vec![(CallState::Done, 3)],
            queue: 2,
            disk_free: 10,
            keeper: Some(KeeperCounters { new_deks: 5, limited: 7, incidents: 2, ..KeeperCounters::default() }),
            exits: vec![(ChildExit::Signal(31), 1)],
            real_time_factor: Distribution { buckets: vec![(0.25, 4), (0.5, 1)], sum: 1.5, count: 6 },
            ..Reading::default()
        };
        let text = metrics.text(reading).unwrap();
        for line in [
            "salama_requests_total{class=\"read\",route=\"/api/v1/calls/{id}\",status=\"200\"} 1",
            "salama_upload_bytes_total 4096",
            "salama_calls{state=\"done\"} 3",
            "salama_queue 2",
            "salama_disk_free_bytes 10",
            "salama_ready 1",
            "salama_key_uses_total{kind=\"new_dek\"} 5",
            "salama_key_uses_total{kind=\"limited\"} 7",
            "salama_key_incidents_total 2",
            "salama_child_exits_total{how=\"signal_31\"} 1",
            "salama_real_time_factor_bucket{le=\"0.5\"} 5",
            "salama_real_time_factor_bucket{le=\"+Inf\"} 6",
            "salama_real_time_factor_count 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
