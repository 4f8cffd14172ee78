"""The recurrent language model once more, in float64 NumPy, written from the equations and from nothing else.

Loops where the package has kernels, so that the two have no code and no cleverness in common. Shapes: T time steps,
B streams, D embedding size, H hidden size, V words. Parameters are a dict: `embedding` [V, D]; for every layer l
`Wx.l` [gates·H, D or H], `Wh.l` [gates·H, H], `b.l` [gates·H]; `output` [V, H] unless tied; `bias` [V].
"""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


class ReferenceLM:
    def __init__(self, parameters, *, rnn, depth, tie, residual=False):
        self.p = {name: value.astype(np.float64) for name, value in parameters.items()}
        self.rnn, self.depth, self.tie, self.residual = rnn, depth, tie, residual
        self.state = None

    def output_matrix(self):
        return self.p["embedding"] if self.tie else self.p["output"]

    def window(self, inputs, targets):
        """Loss and every gradient of one window, [T, B] ids; the state is carried, gradients stop at its start."""
        steps, streams = inputs.shape
        hidden = self.p["Wh.0"].shape[1]
        if self.state is None:
            self.state = [(np.zeros((streams, hidden)), np.zeros((streams, hidden))) for _ in range(self.depth)]
        state = [tuple(s) for s in self.state]
        tape = []
        loss = 0.0
        for t in range(steps):
            x = self.p["embedding"][inputs[t]]
            record = {"layers": []}
            for layer in range(self.depth):
                h_before, c_before = state[layer]
                h, c, memo = self.step(layer, x, h_before, c_before)
                state[layer] = (h, c)
                record["layers"].append((x, h_before, c_before, memo))
                x = h + x if self.residual and layer > 0 else h
            logits = x @ self.output_matrix().T + self.p["bias"]
            shifted = logits - logits.max(axis=1, keepdims=True)
            probability = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
            record["top"], record["probability"] = x, probability
            loss -= np.log(probability[np.arange(streams), targets[t]]).sum()
            tape.append(record)
        self.state = state
        return loss / (steps * streams), self.backward(tape, inputs, targets)

    def step(self, layer, x, h, c):
        a = x @ self.p[f"Wx.{layer}"].T + h @ self.p[f"Wh.{layer}"].T + self.p[f"b.{layer}"]
        if self.rnn == "tanh":
            new = np.tanh(a)
            return new, c, {"h": new}
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c_new = f * c + i * g
        return o * np.tanh(c_new), c_new, {"i": i, "f": f, "g": g, "o": o, "c": c_new}

    def backward(self, tape, inputs, targets):
        grad = {name: np.zeros_like(value) for name, value in self.p.items()}
        steps, streams = inputs.shape
        hidden = self.p["Wh.0"].shape[1]
        dh_next = [np.zeros((streams, hidden)) for _ in range(self.depth)]
        dc_next = [np.zeros((streams, hidden)) for _ in range(self.depth)]
        for t in reversed(range(steps)):
            record = tape[t]
            dlogits = record["probability"].copy()
            dlogits[np.arange(streams), targets[t]] -= 1.0
            dlogits /= steps * streams
            grad["embedding" if self.tie else "output"] += dlogits.T @ record["top"]
            grad["bias"] += dlogits.sum(axis=0)
            dx = dlogits @ self.output_matrix()
            for layer in reversed(range(self.depth)):
                x, h_before, c_before, memo = record["layers"][layer]
                dh = dx + dh_next[layer]
                skipped = dx if self.residual and layer > 0 else 0.0
                da, dc_next[layer] = self.step_backward(dh, dc_next[layer], c_before, memo)
                grad[f"Wx.{layer}"] += da.T @ x
                grad[f"Wh.{layer}"] += da.T @ h_before
                grad[f"b.{layer}"] += da.sum(axis=0)
                dh_next[layer] = da @ self.p[f"Wh.{layer}"]
                dx = da @ self.p[f"Wx.{layer}"] + skipped
            np.add.at(grad["embedding"], inputs[t], dx)
        return grad

    def step_backward(self, dh, dc, c_before, memo):
        if self.rnn == "tanh":
            return dh * (1.0 - memo["h"] ** 2), dc
        tanh_c = np.tanh(memo["c"])
        do = dh * tanh_c
        dc = dc + dh * memo["o"] * (1.0 - tanh_c**2)
        di, df, dg = dc * memo["g"], dc * c_before, dc * memo["i"]
        gates = (
            di * memo["i"] * (1 - memo["i"]),
            df * memo["f"] * (1 - memo["f"]),
            dg * (1 - memo["g"] ** 2),
            do * memo["o"] * (1 - memo["o"]),
        )
        return np.concatenate(gates, axis=1), dc * memo["f"]

    def sgd_step(self, grad, lr, max_norm):
        """Clip all gradients by one norm, then step. Returns the norm before clipping."""
        norm = np.sqrt(sum((g**2).sum() for g in grad.values()))
        scale = min(1.0, max_norm / (norm + 1e-6))
        for name, g in grad.items():
            self.p[name] -= lr * scale * g
        return norm
