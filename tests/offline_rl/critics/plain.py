"""The critics once more, a run and a member at a time: torch.nn modules and torch.optim.Adam, from the formulas.

Shares no code with offline_rl; only starting weights, batches, noise and dropout masks are taken over.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

F64 = torch.float64


def linear(weight, bias):
    """weight (in, out), bias (1, out), as the stacks keep them."""
    layer = nn.Linear(*weight.shape, dtype=F64)
    layer.weight.data, layer.bias.data = weight.detach().T.clone(), bias.detach()[0].clone()
    return layer


class PlainNet(nn.Module):
    """Member g of a stack [W, b, (gain, shift,) ..., W, b]: Linear, (Dropout, LayerNorm,) ReLU, ..., Linear."""

    def __init__(self, parameters, g, normed):
        super().__init__()
        step = 4 if normed else 2
        layers = [[p[g] for p in parameters[i : i + step]] for i in range(0, len(parameters) - 2, step)]
        self.hidden = nn.ModuleList(linear(layer[0], layer[1]) for layer in layers)
        self.norms = nn.ModuleList(nn.LayerNorm(layer[0].shape[1], dtype=F64) for layer in layers if normed)
        for norm, layer in zip(self.norms, layers, strict=False):
            norm.weight.data, norm.bias.data = layer[2].detach()[0].clone(), layer[3].detach()[0].clone()
        self.head = linear(parameters[-2][g], parameters[-1][g])

    def features(self, x, masks=None):
        for i, layer in enumerate(self.hidden):
            x = layer(x)
            if masks is not None:
                x = x * masks[i]
            x = torch.relu(self.norms[i](x) if self.norms else x)
        return x

    def forward(self, x, masks=None):
        return self.head(self.features(x, masks))

    def flat(self):
        """In the stack's order and shapes."""
        found = []
        for i, layer in enumerate(self.hidden):
            found += [layer.weight.T, layer.bias[None]]
            found += [self.norms[i].weight[None], self.norms[i].bias[None]] if self.norms else []
        return [*found, self.head.weight.T, self.head.bias[None]]


class PlainCritic:
    """Run `run` of a critic with its targets and optimiser."""

    def __init__(self, critic, run, normed):
        members = range(critic.members * run, critic.members * (run + 1))
        self.nets = nn.ModuleList(PlainNet(critic.parameters, g, normed) for g in members)
        self.slow = nn.ModuleList(PlainNet(critic.target, g, normed) for g in members)
        self.adam = torch.optim.Adam(self.nets.parameters(), lr=critic.optimiser.learning_rate)
        self.members, self.gamma, self.tau = members, critic.discount, critic.tau

    def descend(self, loss):
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def sync(self):
        with torch.no_grad():
            for slow, p in zip(self.slow.parameters(), self.nets.parameters(), strict=True):
                slow.copy_((1 - self.tau) * slow + self.tau * p)

    def gap(self, critic):
        """The largest difference from the critic's own parameters and targets."""
        pairs = [(critic.parameters, self.nets), (critic.target, self.slow)]
        return max(
            (ours[g] - theirs).abs().max().item()
            for stack, nets in pairs
            for g, net in zip(self.members, nets, strict=True)
            for ours, theirs in zip(stack, net.flat(), strict=True)
        )


class PlainSTAC(PlainCritic):
    """STAC's, or with two members ESTAC's (`pessimism` 0)."""

    def __init__(self, critic, run, beta):
        super().__init__(critic, run, normed=True)
        self.beta = beta

    def heads(self, nets, s, a, masks):
        """Means and deviations, a list of (B,) each."""
        x = torch.cat([s, a], 1)
        outs = [net(x, None if masks is None else masks[e]) for e, net in enumerate(nets)]
        return [o[:, 0] for o in outs], [functional.softplus(torch.clamp(o[:, 1], min=-5.0)) for o in outs]

    def value(self, nets, s, a, masks):
        means, stds = self.heads(nets, s, a, masks)
        return torch.stack([m - self.beta * std for m, std in zip(means, stds, strict=True)]).min(0).values

    def update(self, s, a, r, s2, d, a2, bonus=0.0, masks=None, slow_masks=None):
        with torch.no_grad():
            y = r + self.gamma * (1 - d) * (self.value(self.slow, s2, a2, slow_masks) + bonus)
        means, stds = self.heads(self.nets, s, a, masks)
        normal = [torch.distributions.Normal(m, std) for m, std in zip(means, stds, strict=True)]
        self.descend(-sum(n.log_prob(y).mean() for n in normal))


class PlainBEER(PlainCritic):
    """A twin critic with BEER's penalty; `policy` None is the consistent bound, else the author's."""

    def __init__(self, critic, run, weight, policy=None):
        super().__init__(critic, run, normed=False)
        self.weight, self.policy = weight, policy

    def update(self, s, a, r, s2, d, a2):
        x, x2 = torch.cat([s, a], 1), torch.cat([s2, a2], 1)
        with torch.no_grad():
            y = r + self.gamma * (1 - d) * torch.stack([net(x2)[:, 0] for net in self.slow]).min(0).values
        loss, active = 0.0, 0
        for net, slow in zip(self.nets, self.slow, strict=True):
            phi = net.features(x)
            with torch.no_grad():
                phi_t = slow.features(x2)
                phi_o = phi_t if self.policy is None else net.features(torch.cat([s2, self.policy(s2)], 1))
                top = phi.norm(dim=1) ** 2 + self.gamma**2 * phi_o.norm(dim=1) ** 2 - r**2 / net.head.weight.norm() ** 2
                U = top / (2 * self.gamma * phi.norm(dim=1) * phi_t.norm(dim=1))
            excess = torch.relu(torch.cosine_similarity(phi, phi_t, dim=1, eps=1e-6) - U) * (1 - d)
            loss = loss + functional.mse_loss(net.head(phi)[:, 0], y) + self.weight * excess.mean()
            active += (excess > 0).sum().item()
        self.descend(loss)
        return active
