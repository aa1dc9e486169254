//! Calls of operators, to whoever does what they ask. What the registry has to have first is answered then.

use super::{Core, OperatorCall, Reply, RequestId};

impl Core {
    pub(super) fn operator_call(&mut self, request: RequestId, call: OperatorCall) {
        match &call {
            OperatorCall::Teardown(framework) if self.framework(framework).is_some() => {
                self.remove_framework(framework);
                self.reply(request, Reply::Ok);
            }
            OperatorCall::Teardown(_) => {
                self.refuse(request, 400, "No framework found with specified ID");
            }
            OperatorCall::MarkGone(agent) => self.mark_gone_call(request, agent),
            OperatorCall::Drain { agent, .. }
            | OperatorCall::Deactivate(agent)
            | OperatorCall::Reactivate(agent) => {
                let agent = agent.clone();
                self.deactivation_call(request, &agent, call);
            }
            OperatorCall::UpdateSchedule(_)
            | OperatorCall::StartMaintenance(_)
            | OperatorCall::StopMaintenance(_) => self.maintenance_call(request, call),
            OperatorCall::UpdateWeights(weights) => self.update_weights(request, weights.clone()),
        }
    }
}
