//! Calls of schedulers, to whoever does what they ask.
//!
//! A scheduler's call is refused, in this order as in Mesos, when its framework is not known, not
//! subscribed, or the call names another stream than the framework's own.

use tepui_api::v1::FrameworkId;
use tepui_api::v1::scheduler::Call;
use tepui_api::v1::scheduler::call::Type;

use super::{Core, Reply, RequestId, StreamHeader};

impl Core {
    pub(super) fn scheduler_call(&mut self, request: RequestId, header: StreamHeader, call: Call) {
        let Some(id) = call.framework_id.clone() else {
            return self.refuse(request, 400, "Expecting 'framework_id' to be present");
        };
        let Some(framework) = self.framework(&id) else {
            return self.refuse(request, 400, "Framework cannot be found");
        };
        let Some(own) = framework.stream() else {
            return self.refuse(request, 403, "Framework is not subscribed");
        };
        match header {
            StreamHeader::Present(stream) if stream == own => {}
            StreamHeader::Absent => {
                let message = "All non-subscribe calls should include the 'Mesos-Stream-Id' header";
                return self.refuse(request, 400, message);
            }
            StreamHeader::Present(_) | StreamHeader::Unknown => {
                let message = format!("The stream id of this request is not that of the framework {id}");
                return self.refuse(request, 400, message);
            }
        }
        if call.r#type() == Type::UpdateFramework {
            let Some(update) = call.update_framework else {
                return self.missing(request, "update_framework");
            };
            return match self.update_framework_call(&id, update) {
                Ok(()) => self.reply(request, Reply::Ok),
                Err(error) => self.refuse(request, 400, format!("The framework cannot be updated: {error}")),
            };
        }
        match self.obey(&id, call) {
            Ok(()) => self.reply(request, Reply::Accepted),
            Err(Refused::Missing(part)) => self.missing(request, part),
            Err(Refused::Unknown) => self.refuse(request, 501, "A call of type UNKNOWN is not implemented"),
        }
    }

    /// Does what a framework asks for. What turns out to be impossible is told by events, or not at
    /// all, as in Mesos.
    fn obey(&mut self, id: &FrameworkId, call: Call) -> Result<(), Refused> {
        match call.r#type() {
            Type::Teardown => self.remove_framework(id),
            Type::Accept => self.accept(id, call.accept.ok_or(Refused::Missing("accept"))?),
            Type::Decline => self.decline(id, &call.decline.ok_or(Refused::Missing("decline"))?),
            Type::Revive => self.revive(id, &call.revive.unwrap_or_default().roles),
            Type::Suppress => self.suppress(id, &call.suppress.unwrap_or_default().roles),
            Type::Kill => self.kill(id, call.kill.ok_or(Refused::Missing("kill"))?),
            Type::Shutdown => self.shutdown_executor(id, call.shutdown.ok_or(Refused::Missing("shutdown"))?),
            Type::Acknowledge => {
                self.acknowledge(id, call.acknowledge.ok_or(Refused::Missing("acknowledge"))?);
            }
            Type::Reconcile => self.reconcile(id, call.reconcile.ok_or(Refused::Missing("reconcile"))?),
            Type::ReconcileOperations => {
                let part = call.reconcile_operations.ok_or(Refused::Missing("reconcile_operations"))?;
                self.reconcile_operations(id, part);
            }
            Type::Message => self.message(id, call.message.ok_or(Refused::Missing("message"))?),
            Type::AcceptInverseOffers => {
                let part = call.accept_inverse_offers.ok_or(Refused::Missing("accept_inverse_offers"))?;
                self.accept_inverse_offers(id, &part);
            }
            Type::DeclineInverseOffers => {
                let part = call.decline_inverse_offers.ok_or(Refused::Missing("decline_inverse_offers"))?;
                self.decline_inverse_offers(id, &part);
            }
            // Mesos' allocator takes note of the first. There are no operations yet whose updates could be
            // acknowledged.
            Type::Request | Type::AcknowledgeOperationStatus => {}
            // Both have been dealt with; an unknown type is answered 501.
            Type::Subscribe | Type::UpdateFramework | Type::Unknown => return Err(Refused::Unknown),
        }
        Ok(())
    }

    fn missing(&mut self, request: RequestId, part: &str) {
        self.refuse(request, 400, format!("Expecting '{part}' to be present"));
    }
}

/// Why a call does nothing.
enum Refused {
    Missing(&'static str),
    Unknown,
}
