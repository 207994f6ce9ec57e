"""The interacting agents once more, one run in float64, with torch.nn, torch.optim and torch.distributions.

From the formulas of specs/online_baselines.md, stac.md and beer.md; shares no code with offline_rl but the starting
weights, the replay's rows and the random draws (Philox words, normal numbers, dropout masks).
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from offline_rl.dropout_stack import draw_masks

F64 = torch.float64


class Net(nn.Module):
    """Linear (mask, LayerNorm) ReLU ..., Linear, from member `index` of a stack in a state dict."""

    def __init__(self, state, prefix, index, normed):
        super().__init__()
        flat = [state[f"{prefix}.{i}"][index] for i in range(len(count(state, prefix)))]
        self.linears, self.norms = nn.ModuleList(), nn.ModuleList()
        while flat:
            weight, bias, flat = flat[0], flat[1], flat[2:]
            linear = nn.Linear(*weight.shape, dtype=F64)
            linear.weight.data, linear.bias.data = weight.detach().t().clone(), bias.detach()[0].clone()
            self.linears.append(linear)
            if normed and flat:
                norm = nn.LayerNorm(weight.shape[1], dtype=F64)
                norm.weight.data, norm.bias.data = flat[0].detach()[0].clone(), flat[1].detach()[0].clone()
                self.norms.append(norm)
                flat = flat[2:]

    def hidden(self, x, masks=None):
        for layer, linear in enumerate(self.linears[:-1]):
            x = linear(x)
            if masks is not None:
                x = x * masks[layer]
            x = torch.relu(self.norms[layer](x) if len(self.norms) else x)
        return x

    def forward(self, x, masks=None):
        return self.linears[-1](self.hidden(x, masks))

    def flat(self):
        """The parameters in the stack's order and orientation."""
        found = []
        for layer, linear in enumerate(self.linears):
            found += [linear.weight.t(), linear.bias[None]]
            if layer < len(self.norms):
                found += [self.norms[layer].weight[None], self.norms[layer].bias[None]]
        return found


def count(state, prefix):
    return [name for name in state if name.rsplit(".", 1)[0] == prefix]


def adam(*nets, rate):
    return torch.optim.Adam(itertools.chain(*(net.parameters() for net in nets)), lr=rate)


def step(optimiser, loss, *others):
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    loss.backward()
    optimiser.step()


@torch.no_grad()
def follow(target, net, tau):
    for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
        slow.copy_((1 - tau) * slow + tau * fast)


class Reference:
    """Run number `run` of an agent that has a filled replay and has not been updated."""

    def __init__(self, agent, run, members, normed=False):
        self.agent, self.run, self.config = agent, run, agent.config
        self.state = {name: tensor.detach().clone() for name, tensor in agent.state_dict().items()}
        self.rows = self.state["replay"][run].to(F64)
        self.actor = Net(self.state, "actor", run, normed)
        self.slow_actor = copy.deepcopy(self.actor)
        self.critics = [Net(self.state, "critic.online", run * members + i, normed) for i in range(members)]
        self.slow_critics = copy.deepcopy(self.critics)
        self.actor_adam = adam(self.actor, rate=self.config.learning_rate)
        self.critic_adam = adam(*self.critics, rate=self.config.learning_rate)
        self.t = 0

    def batch(self, distinct=False):
        """s, a, r, s', d of the next update: the first different rows of the draw, found one by one."""
        self.t += 1
        size, wanted = len(self.rows), self.config.batch_size
        if distinct and size < 8 * wanted:
            words = self.agent.philox.words("permutation", self.t, 1, size)[self.run, 0].tolist()
            index = sorted(range(size), key=lambda i: words[i])[:wanted]
        else:
            number = wanted + wanted // 4 + 8 if distinct else wanted
            words = self.agent.philox.words("batch", self.t, 1, number)[self.run, 0].tolist()
            index = [word * size // 2**32 for word in words]
            index = list(dict.fromkeys(index))[:wanted] if distinct else index
        rows, d, a = self.rows[index], self.agent.obs_dim, self.agent.obs_dim + self.agent.action_dim
        return rows[:, :d], rows[:, d:a], rows[:, a], rows[:, a + 2 :], rows[:, a + 1]

    def normal(self, name, *shape):
        flat = self.agent.philox.normal(name, self.t, 1, torch.Size(shape).numel(), F64)
        return flat[self.run, 0].reshape(shape)

    def masks(self, purpose, probability, members=1):
        """One list of masks a member."""
        widths, rows = self.config.hidden, self.config.batch_size
        found = draw_masks(self.agent.philox, purpose, self.t, probability, widths, rows, members, F64)
        if found is None:
            return [None] * members
        return [[mask[self.run * members + i] for mask in found] for i in range(members)]

    def worst_gap(self):
        """Largest difference of this run's parameters from the agent's."""
        state, members = self.agent.state_dict(), len(self.critics)
        pairs = [("actor", self.run, self.actor)]
        if "actor_target.0" in state:
            pairs.append(("actor_target", self.run, self.slow_actor))
        for i in range(members):
            pairs.append(("critic.online", self.run * members + i, self.critics[i]))
            pairs.append(("critic.target", self.run * members + i, self.slow_critics[i]))
        gaps = [
            (state[f"{prefix}.{i}"][index] - tensor).abs().max().item()
            for prefix, index, net in pairs
            for i, tensor in enumerate(net.flat())
        ]
        if hasattr(self, "log_alpha"):
            gaps.append((state["log_alpha"][self.run] - self.log_alpha).abs().item())
        return max(gaps)


def cat(*parts):
    return torch.cat(parts, 1)


def td3(agent, run, steps):
    """online_baselines.md, TD3."""
    me, c = Reference(agent, run, 2), agent.config
    for t in range(1, steps + 1):
        s, a, r, s2, d = me.batch()
        noise = me.normal("target_noise", len(s), a.shape[1])
        with torch.no_grad():
            a2 = torch.tanh(me.slow_actor(s2)) + (c.policy_noise * noise).clip(-c.noise_clip, c.noise_clip)
            slow = [q(cat(s2, a2.clip(-1, 1)))[:, 0] for q in me.slow_critics]
            y = r + c.discount * (1 - d) * torch.minimum(*slow)
        step(me.critic_adam, sum(nn.functional.mse_loss(q(cat(s, a))[:, 0], y) for q in me.critics))
        if t % c.policy_period == 0:
            step(me.actor_adam, -me.critics[0](cat(s, torch.tanh(me.actor(s)))).mean())
            for slow, fast in zip([me.slow_actor, *me.slow_critics], [me.actor, *me.critics], strict=True):
                follow(slow, fast, c.tau)
    return me


def beer(agent, run, steps):
    """beer.md, sections 3 and 4, with the corrections of 3.3."""
    me, c = Reference(agent, run, 1), agent.config
    (q,), (slow,) = me.critics, me.slow_critics
    for _ in range(steps):
        s, a, r, s2, d = me.batch()
        with torch.no_grad():
            a2 = torch.tanh(me.slow_actor(s2))
            y = r + c.discount * (1 - d) * slow(cat(s2, a2))[:, 0]
            f2 = slow.hidden(cat(s2, a2))
            longest = q.hidden(cat(s2, torch.tanh(me.actor(s2)))) if c.bound == "author" else f2
        f = q.hidden(cat(s, a))
        with torch.no_grad():
            w, b = q.linears[-1].weight[0], q.linears[-1].bias[0]
            rho = r - (1 - c.discount) * b if c.bias_correct else r
            top = (f**2).sum(1) + c.discount**2 * (longest**2).sum(1) - rho**2 / (w @ w)
            limit = top / (2 * c.discount * f.norm(dim=1) * f2.norm(dim=1))
        cosine = nn.functional.cosine_similarity(f, f2, eps=1e-6)
        excess = torch.relu(cosine - limit) * ((1 - d) if c.mask_terminal else 1)
        step(me.critic_adam, nn.functional.mse_loss(q.linears[-1](f)[:, 0], y) + c.beta * excess.mean())
        step(me.actor_adam, -q(cat(s, torch.tanh(me.actor(s)))).mean())
        follow(slow, q, c.tau)
        follow(me.slow_actor, me.actor, c.tau)
    return me


def squashed(mean, std, noise):
    """Action and log-density; the transform's cache keeps the u that made the action."""
    base = Independent(Normal(mean, std), 1)
    policy = TransformedDistribution(base, [TanhTransform(cache_size=1)])
    a = policy.transforms[0](mean + std * noise)
    return a, policy.log_prob(a)


def sac(agent, run, steps):
    """online_baselines.md, SAC; all steps of an update with the temperature of before it."""
    me, c = Reference(agent, run, 2), agent.config
    me.log_alpha = me.state["log_alpha"][run].clone().requires_grad_()
    alpha_adam = torch.optim.Adam([me.log_alpha], lr=c.alpha_learning_rate)
    goal = -agent.action_dim if c.target_entropy is None else c.target_entropy

    def draw(s, noise):
        mean, log_std = me.actor(s).chunk(2, 1)
        return squashed(mean, log_std.clip(-20, 2).exp(), noise)

    for _ in range(steps):
        s, a, r, s2, d = me.batch()
        noise = me.normal("policy_noise", 2, *a.shape)
        alpha = me.log_alpha.detach().exp()
        with torch.no_grad():
            a2, density = draw(s2, noise[0])
            y = torch.minimum(*(q(cat(s2, a2))[:, 0] for q in me.slow_critics)) - alpha * density
            y = r + c.discount * (1 - d) * y
        step(me.critic_adam, sum(nn.functional.mse_loss(q(cat(s, a))[:, 0], y) for q in me.critics))
        action, density = draw(s, noise[1])
        lower = torch.minimum(*(q(cat(s, action))[:, 0] for q in me.critics))
        step(me.actor_adam, (alpha * density - lower).mean())
        step(alpha_adam, -(me.log_alpha * (density.detach() + goal)).mean())
        for slow, fast in zip(me.slow_critics, me.critics, strict=True):
            follow(slow, fast, c.tau)
    return me


def stac(agent, run, steps):
    """stac.md, sections 2 to 4 and 7; ESTAC with two critics."""
    c = agent.config
    me = Reference(agent, run, c.critics, normed=True)
    me.log_alpha = me.state["log_alpha"][run].clone().requires_grad_()
    alpha_adam = torch.optim.Adam([me.log_alpha], lr=c.alpha_learning_rate)
    goal = -agent.action_dim if c.target_entropy is None else c.target_entropy

    def std(z):
        return nn.functional.softplus(torch.maximum(z, torch.tensor(-5.0, dtype=F64)))

    def draw(s, noise, masks):
        mean, z = me.actor(s, masks).chunk(2, 1)
        return squashed(mean, std(z), noise)

    def judged(nets, x, masks):
        out = [net(x, mask) for net, mask in zip(nets, masks, strict=True)]
        return [o[:, 0] for o in out], [std(o[:, 1]) for o in out]

    def pessimistic(means, stds):
        return torch.minimum(*means) if len(means) == 2 else means[0] - c.beta * stds[0]

    for _ in range(steps):
        s, a, r, s2, d = me.batch(c.distinct)
        noise = me.normal("policy_noise", 2, *a.shape)
        masks = {name: me.masks(f"dropout.actor.{name}", c.actor_dropout)[0] for name in ("next", "now")}
        drop = {name: me.masks(f"dropout.critic.{name}", c.critic_dropout, c.critics) for name in ("data", "actor")}
        p = c.critic_dropout if c.target_dropout else 0.0
        drop["target"] = me.masks("dropout.critic.target", p, c.critics)
        alpha = me.log_alpha.detach().exp()
        with torch.no_grad():
            a2, density = draw(s2, noise[0], masks["next"])
            v = pessimistic(*judged(me.slow_critics, cat(s2, a2), drop["target"]))
            y = r + c.discount * (1 - d) * (v - alpha * density)
        means, stds = judged(me.critics, cat(s, a), drop["data"])
        nll = sum(-Normal(m, sigma).log_prob(y).mean() for m, sigma in zip(means, stds, strict=True))
        step(me.critic_adam, nll)
        for slow, fast in zip(me.slow_critics, me.critics, strict=True):
            follow(slow, fast, c.tau)
        action, density = draw(s, noise[1], masks["now"])
        v = pessimistic(*judged(me.critics, cat(s, action), drop["actor"]))
        step(me.actor_adam, (alpha * density - v).mean())
        entropy = -density.detach().mean()
        if c.alpha_rule == "adam":
            step(alpha_adam, me.log_alpha * (entropy - goal))
        else:
            factor = alpha if c.alpha_rule == "stac" else 1.0
            new = alpha * torch.exp(c.alpha_learning_rate * factor * (goal - entropy))
            me.log_alpha.data = new.clamp(max=c.alpha_cap).log()
    return me
