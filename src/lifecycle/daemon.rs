//! The confined daemon: desk > router > server > ready > a reason to end > drained.
//! Trusts: [`Confined`]: nothing here can run before it.
//! Touches: everything that the parts touch.
//! Next: `connection::serve` for a request, `job::runner` for a call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::bursts::Relay;
use super::notify::{self, Notifier};
use super::parts::{Parts, StartedKeeper, job_settings};
use super::signals::{self, End, Signals};
use super::vitals::Machine;
use crate::api::router;
use crate::api::state::{Api, ApiParts};
use crate::audit::{self, event::Event};
use crate::base::clock::SystemClock;
use crate::connection::serve::Server;
use crate::connection::tls::{self, TlsError};
use crate::job::border::Forked;
use crate::job::calls::{Calls, CallsParts, OpenCallsError};
use crate::keys;
use crate::record::store::OpenStoreError;
use crate::sandbox::process::Confined;

/// Serves until there is a reason to end.
///
/// # Errors
/// [`ServeError`]; the loss of the keeper or the fork server is one, so that systemd starts all of them anew.
pub fn serve(confined: Confined, parts: Parts) -> Result<(), ServeError> {
    let runtime = Runtime::new().map_err(ServeError::Runtime)?;
    runtime.block_on(run(&confined, parts))
}

async fn run(confined: &Confined, parts: Parts) -> Result<(), ServeError> {
    let Parts { config, notifier, listener, keeper: StartedKeeper { keeper, greeting, process }, workers, index, store } = parts;
    let (report_end, ends) = mpsc::unbounded_channel();
    let (stop, stopping) = watch::channel(false);
    let signals = Signals::listen().map_err(ServeError::Signals)?;
    signals::watch_keeper(process, report_end.clone()).map_err(ServeError::Thread)?;

    let models = workers.models().to_vec();
    let on_lost = move |_| {
        audit::record(&Event::WorkerLost);
        let _ = report_end.send(End::WorkerLost);
    };
    let (supervisor, _) = workers.run(on_lost).map_err(ServeError::Thread)?;
    let calls = Calls::open(CallsParts {
        store: store.start()?,
        index,
        keeper: Arc::new(keeper.clone()),
        supervisor: Arc::new(Forked {
            supervisor,
            models: models.iter().map(|model| format!("{}@{}", model.name, model.version)).collect(),
        }),
        settings: job_settings(&config),
        clock: Arc::new(SystemClock),
    })?;

    let relay = Relay { keeper: keeper.clone(), start: greeting.standing.start };
    let machine = Machine::new(calls.clone(), keeper.clone(), greeting.standing, &config);
    let parts = ApiParts {
        desk: calls.clone(),
        vitals: Arc::new(machine),
        bursts: Arc::new(relay),
        clock: Arc::new(SystemClock),
        models: models.clone(),
        draining: stopping.clone(),
    };
    let api = Api::new(parts, &config.listen, &config.limits, &config.jobs);
    let tls = tls::server_config(greeting.server_chain, keys::tls::signing_key(keeper), greeting.client_ca)?;
    let server = Server::new(tls, router(api), &config.listen, &config.limits);
    let address = listener.local_addr().map_err(ServeError::Listen)?;
    let serving = tokio::spawn(server.run(listener, stopping));

    audit_start(confined, models.len());
    let notifier = Arc::new(notifier);
    let feeding = tokio::spawn(feed_watchdog(Arc::clone(&notifier), calls.clone()));
    notifier.ready(address);
    let end = signals.or(ends).await;

    notifier.stopping();
    let _ = stop.send(true);
    let stopped = tokio::task::spawn_blocking(move || calls.stop());
    let served = serving.await.map_err(|error| ServeError::Listen(io::Error::other(error)))?;
    let _ = stopped.await;
    feeding.abort();
    audit::record(&Event::DaemonStopped { reason: end.code() });
    served.map_err(ServeError::Listen)?;
    if end == End::Signal { Ok(()) } else { Err(ServeError::Lost(end)) }
}

fn audit_start(confined: &Confined, models: usize) {
    audit::record(&Event::KeeperStarted);
    audit::record(&Event::WorkerStarted { models: u64::try_from(models).unwrap_or(u64::MAX) });
    audit::record(&super::confinement(confined.report()));
    audit::record(&Event::DaemonStarted { version: env!("CARGO_PKG_VERSION") });
}

/// Tells systemd that the daemon lives, as long as its store and its runners do.
async fn feed_watchdog(notifier: Arc<Notifier>, calls: Calls) {
    let Some(interval) = notify::watchdog_interval() else { return };
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        let health = calls.health();
        if health.store && health.runners {
            notifier.alive();
        }
    }
}

/// Why serving failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No runtime.
    #[error("the runtime could not be built")]
    Runtime(#[source] io::Error),
    /// No thread.
    #[error("a thread could not be started")]
    Thread(#[source] io::Error),
    /// The listening socket.
    #[error("the listening socket failed")]
    Listen(#[source] io::Error),
    /// No signals.
    #[error("signals cannot be listened for")]
    Signals(#[source] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The desk.
    #[error(transparent)]
    Calls(#[from] OpenCallsError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A process that the daemon cannot do without.
    #[error("{0}")]
    Lost(End),
}
