/* Which heads are critical and which go, and what that is estimated to do: pure functions.
 *
 * The rule is that of fasp_core.heads.selection.select and fasp_core.scoring.manual_edits; Python sends orders, so that
 * ties, signs and seeds stay its affair. Heads are flat ids. A rule is
 *   { size, cost, protect, found, critical }
 * cost: all heads, those that go first in front; protect: all heads, those that matter most in front, or null where
 * nothing is critical; without a cost, `found` is a set that was found otherwise, and `critical` what it spared.
 * What is set by hand is { prune, keep }, two Sets. */
export const PRUNED = 1, CRITICAL = 2, FORCED = 4, LOCKED = 8;

/* floor(share * n), free of rounding: the largest k with k / n <= share. */
export const wholeHeads = (share, n) => {
  let k = Math.min(n, Math.max(0, Math.floor(share * n)));
  while (k < n && (k + 1) / n <= share) k++;
  while (k > 0 && k / n > share) k--;
  return k;
};

/* State of every head as bits, how many go, and how many alpha asks for. */
export const choose = ({ size, cost, protect, found, critical }, gamma, alpha, { prune, keep }) => {
  const marks = new Uint8Array(size);
  const set = (heads, bit) => { for (const head of heads) marks[head] |= bit; };
  set(keep, LOCKED);
  set(prune, FORCED | PRUNED);
  set(cost ? (protect ?? []).slice(0, wholeHeads(gamma, size)) : critical, CRITICAL);
  const asked = cost ? wholeHeads(alpha, size) : found.length;
  let count = prune.size;
  for (const head of cost ?? found) {
    if (cost && count >= asked) break;
    if (marks[head] & (FORCED | LOCKED) || (cost && marks[head] & CRITICAL)) continue;
    marks[head] |= PRUNED;
    count++;
  }
  return { marks, count, asked };
};

/* Heads to prune (true), to keep (false), or to leave to the method (null). */
export const told = ({ prune, keep }, heads, off) => {
  const next = { prune: new Set(prune), keep: new Set(keep) };
  for (const head of heads) {
    next.prune.delete(head);
    next.keep.delete(head);
    if (off !== null) (off ? next.prune : next.keep).add(head);
  }
  return next;
};

/* Gates of all heads at a strength, from those at 1, as fasp_core.scoring.learned.gains.Gains.at has them. */
export const gatesAt = (learned, strength) =>
  learned.map((gate) => Math.round(1e4 * Math.min(1.5, Math.max(0, 1 + strength * (gate - 1)))) / 1e4);

/* What the output of every head is multiplied by: 0 where it goes, else what it is scaled by, by hand or, unless it is
 * kept by hand, as it was learned (null: nothing was), else 1. */
export const gatesOf = (marks, learned, { keep, gains }) => {
  const gates = new Float64Array(marks.length).fill(1);
  for (let head = 0; head < marks.length; head++)
    if (marks[head] & PRUNED) gates[head] = 0;
    else gates[head] = gains[head] ?? (learned && !keep.has(head) ? learned[head] : 1);
  return gates;
};

/* Straight lines between points of ascending `at`. */
export const between = (at, values, x) => {
  const i = Math.min(at.length - 2, Math.max(0, at.findIndex((end) => end >= x) - 1));
  return values[i] + ((values[i + 1] - values[i]) * (x - at[i])) / (at[i + 1] - at[i]);
};

/* What a hand has changed: heads that are told anew, and gates, where 1 is as the head is. */
export const changes = (before, after) => {
  const news = (set, old) => [...set].filter((head) => !old.has(head)).sort((a, b) => a - b);
  const gate = ({ gains }, head) => gains[head] ?? 1;
  const scaled = Object.keys({ ...before.gains, ...after.gains }).filter((head) => gate(before, head) !== gate(after, head));
  return {
    prune: news(after.prune, before.prune),
    keep: news(after.keep, before.keep),
    leave: news(new Set([...before.prune, ...before.keep]), new Set([...after.prune, ...after.keep])),
    gains: scaled.map((head) => [Number(head), gate(after, head)]),
  };
};

/* Heads that are off come on, those that are on go off; only what the method would not do of itself is told.
 * Telling one head may move another, so it is looked at again until all stand. */
export const toggled = (byHand, heads, marksOf) => {
  const off = marksOf(byHand);
  let next = told(byHand, heads, null);
  for (;;) {
    const now = marksOf(next);
    const wrong = heads.filter((head) => !((now[head] ^ off[head]) & PRUNED));
    if (!wrong.length) return next;
    next = told(next, wrong.filter((head) => !(off[head] & PRUNED)), true);
    next = told(next, wrong.filter((head) => off[head] & PRUNED), false);
  }
};

const gapOf = ({ base, groups, count }, logs) => {
  const n = base.length;
  const sums = new Float64Array(count), sizes = new Float64Array(count);
  let all = 0;
  for (let i = 0; i < n; i++) {
    const value = Math.min(1, Math.max(0, base[i] * Math.exp(logs[i])));
    all += value;
    sums[groups[i]] += value;
    sizes[groups[i]]++;
  }
  let gap = 0;
  for (let g = 0; g < count; g++) if (sizes[g]) gap += Math.abs(all / n - sums[g] / sizes[g]);
  return gap;
};

/* What single effects come to when they are multiplied, as ImpactTable.estimate does it: perplexity, gap, and what last
 * words lose (null where that is not known). `closed` says of every head how far it is closed, 1 minus its gate;
 * `taught` has the factors of measured sets, of nats and of the gap; `start` changes that are known without the heads,
 * of nats and of the gap relative to the unpruned model's.
 *
 * Effects are { nats, meanNats, base, steps, scale, groups, count, task }: nats a token that each head adds to their mean;
 * the toxicity of n prompts, and the log of its change by each head in whole steps of that head's scale; the group of
 * each prompt. The sum of the last heads is kept with them, so that a frame costs as much as it changes. */
export const estimate = (effects, closed, taught = [1, 1], start = [0, 0]) => {
  const { nats, meanNats, base, steps, scale, task } = effects;
  const n = base.length;
  const none = new Float64Array(n);
  effects.kept ??= { logs: none, was: new Float64Array(closed.length), whole: gapOf(effects, none) };
  const { logs, was, whole } = effects.kept;
  let total = 0;
  let words = 0;
  for (let head = 0; head < closed.length; head++) {
    const by = closed[head];
    if (by) {
      total += by * nats[head];
      if (task) words += by * task[head];
    }
    if (by === was[head]) continue;
    const step = (by - was[head]) * scale[head];
    was[head] = by;
    for (let i = 0, at = head * n; i < n; i++, at++) logs[i] += step * steps[at];
  }
  const gap = Math.max(0, whole + start[1] * whole + taught[1] * (gapOf(effects, logs) - whole));
  const mean = meanNats + start[0] + taught[0] * total;
  return { perplexity: Math.exp(Math.min(mean, 700)), gap, task: task ? words : null };
};

/* The heads of the rectangle between two heads, both within; `place` says where a head stands, `at` who stands there. */
export const block = (first, last, columns, place, at) => {
  const [a, b] = [place[first], place[last]];
  const [top, bottom] = [Math.floor(a / columns), Math.floor(b / columns)].sort((x, y) => x - y);
  const [left, right] = [a % columns, b % columns].sort((x, y) => x - y);
  const heads = [];
  for (let row = top; row <= bottom; row++)
    for (let column = left; column <= right; column++) heads.push(at[row * columns + column]);
  return heads;
};
