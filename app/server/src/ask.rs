//! Questions of other tasks to a worker, answered between two of its turns.

use node::Worker;
use runtime::{Control, Remote};
use tokio::sync::oneshot;

/// What the worker says; none if it has ended. A busy worker answers late: who cannot wait so long gives it a time.
pub(crate) async fn ask<T: Send + 'static>(
    remote: &Remote,
    what: impl FnOnce(&mut Worker) -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let call = move |worker: &mut Worker| {
        // Nobody may wait any more.
        let _ = tell.send(what(worker));
    };
    if !remote.send(Control::Call(Box::new(call))) {
        return None;
    }
    told.await.ok()
}
