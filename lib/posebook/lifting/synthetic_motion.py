"""Synthetic motion: procedural people who walk, sit, throw and talk in front of a camera, from a seed.

Nothing is read from a file. A clip is a sequence of activities with cross-fades. An activity moves the
pelvis, the spine, the arms and the feet by a few keyframes. The feet step from footprint to footprint, and
the knees follow from hip and ankle (two bones of known length). Proportions and joint limits are those of the
synthetic images (datasets/synthetic/anatomy.py: Drillis and Contini, 1966; AAOS, 1965). World axes: x to the
left of a person who looks along z, y up, the floor at y = 0. Units are meters and degrees.

Choices without a source:
1. Keyframes, cadences and strides are set by hand, by their look. A lifter that does well here has learned
   this motion, not Human3.6M's: numbers on it compare methods and are not a benchmark.
2. A foot on the floor does not move. Late in a stride its heel rises about the ball of the foot. The pelvis
   is lowered if a leg would otherwise extend to more than 0.998 of its length.
3. The simulated detector has AR(1) jitter that grows with the person's size in pixels and towards hands and
   feet. Sometimes it is wrong about a joint for a few frames. Its scores decrease with the error.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import signal

from posebook.datasets.synthetic.anatomy import ARMS, HIP, LIMITS, SHOULDER, SIDES, TABLE, smoothstep
from posebook.lifting.camera import Camera
from posebook.lifting.clips import Clip

SPLITS = {"train": 0, "val": 1}  # seeds
SIZE = 1000  # pixels: height and width of all images
ARM = ("shoulder_flex", "shoulder_abduct", "shoulder_rotate", "elbow")
POSES = ARMS | {
    "wave_in": (6, 88, 80, 48), "punch": (84, 6, 0, 8), "guard": (38, 8, -30, 122), "clap": (62, 10, -38, 62),
    "open": (62, 42, 0, 40), "cocked": (-10, 100, 76, 96), "thrown": (98, 14, 0, 12), "low": (30, 6, 0, 20),
    "out_front": (72, 44, 0, 20), "back": (-30, 12, 0, 14),
}  # fmt: skip
# Each activity has a cycle in seconds, gait parameters or None, and keyframes.
# Gait: cycles of two steps per second; stride ahead and sideways, over stature; largest turn in degrees;
# share of the cycle with the foot on the floor; lift of the foot, over stature. With a gait, the cycle is two
# steps. Keyframes, at equal intervals over the cycle, of: arms (names of POSES), angles of LIMITS, pelvis
# (drop, back, shift, rise over stature; pitch, yaw), feet (ahead, up, out, over stature). "near" and "far"
# become right or left at random. Twists, side bends and shifts are positive towards the named side.
ACTIVITIES: dict[str, tuple[float, tuple[float, ...] | None, dict[str, str]]] = {
    "walk": (0, (0.92, 0.72, 0, 230, 0.62, 0.015), {
        "left_arm": "walk_back walk_front", "right_arm": "walk_front walk_back",
        "left_spine_twist": "9 -9", "left_yaw": "-5 5", "drop": ".026 .012 .026 .012",
        "left_shift": "0 .012 0 -.012", "pitch": "2", "spine_flex": "3"}),
    "jog": (0, (1.35, 0.95, 0, 300, 0.4, 0.07), {
        "left_arm": "swing_back swing_front", "right_arm": "swing_front swing_back",
        "left_spine_twist": "14 -14", "left_yaw": "-7 7", "drop": ".035 .065 .035 .065",
        "pitch": "6", "spine_flex": "6"}),
    "run in place": (0, (1.35, 0, 0, 40, 0.45, 0.16), {
        "left_arm": "swing_back swing_front", "right_arm": "swing_front swing_back",
        "left_spine_twist": "8 -8", "drop": ".03 .05 .03 .05", "pitch": "3", "left_shift": "0 .01 0 -.01"}),
    "turn": (0, (0.85, 0, 0, 330, 0.62, 0.035), {
        "drop": ".02 .012 .02 .012", "left_shift": "0 .012 0 -.012"}),
    "sidestep": (0, (0.9, 0, 0.34, 60, 0.62, 0.03), {
        "both_arm": "out hang", "drop": ".035 .02 .035 .02"}),
    "stand": (4.0, None, {"near_shift": "0 .03 .03 -.02", "near_neck_twist": "0 25 -20 5"}),
    "talk": (3.2, None, {
        "near_arm": "hold out_front hold face", "far_arm": "hang hold hold hang",
        "near_neck_twist": "0 18 -12 8", "near_spine_twist": "0 8 -6 0", "near_shift": "-.02 .01 -.02 .02"}),
    "wave": (1.6, None, {
        "near_arm": "wave wave_in wave wave_in", "near_spine_side": "-3 -6 -4 -3", "far_shift": ".02"}),
    "reach": (2.8, None, {
        "near_arm": "hang reach raised reach", "near_spine_twist": "0 -14 -6 0",
        "near_neck_twist": "0 14 8 0", "spine_flex": "0 8 -4 4", "near_shift": "0 .02 .02 0",
        "neck_flex": "4 0 -20 0"}),
    "pick up": (3.2, None, {
        "both_arm": "hang down down hold", "drop": "0 .14 .17 .02", "back": "0 .07 .09 0",
        "pitch": "0 42 48 4", "spine_flex": "2 30 38 6", "neck_flex": "4 -10 -5 4"}),
    "bow": (3.0, None, {
        "both_arm": "hang low low hang", "pitch": "0 34 36 0", "spine_flex": "2 24 26 2",
        "back": "0 .06 .06 0", "neck_flex": "4 18 18 4"}),
    "squat": (2.4, None, {
        "both_arm": "hang reach reach hang", "drop": "0 .2 .24 .04", "back": "0 .07 .09 .01",
        "pitch": "0 24 28 4", "spine_flex": "2 12 14 2", "neck_flex": "4 -16 -18 0"}),
    "sit": (4.6, None, {
        "both_arm": "hang lap lap lap hold hang", "drop": "0 .235 .245 .245 .19 .01",
        "back": "0 .2 .225 .225 .15 0", "pitch": "2 14 -4 -4 32 8", "spine_flex": "4 16 8 10 22 6",
        "both_foot_ahead": ".02"}),
    "kick": (1.9, None, {
        "near_foot_ahead": "0 -.2 .3 .22 0 0", "near_foot_up": "0 .1 .22 .12 0 0", "far_shift": ".05",
        "near_arm": "hang walk_front swing_back walk_back hang hang", "back": "0 -.02 .03 .02 0 0",
        "far_arm": "hang walk_back out reach hang hang", "spine_flex": "0 -6 12 8 0 0", "drop": ".03"}),
    "jump": (2.0, None, {
        "both_arm": "hang low back out raised reach hang hang", "rise": ".5 .74 .17",
        "drop": "0 .08 .15 .03 .02 .03 .13 .03", "back": "0 .03 .05 .0 0 0 .04 .01",
        "pitch": "0 18 28 4 0 4 22 6", "spine_flex": "0 10 14 0 -3 4 12 4"}),
    "throw": (2.1, None, {
        "near_arm": "hold cocked cocked thrown low hang", "far_arm": "hold reach out hang hang hang",
        "near_spine_twist": "0 -24 -30 26 18 0", "near_yaw": "0 -10 -14 12 8 0",
        "spine_flex": "2 -6 -8 16 18 4", "near_shift": "0 .04 .04 -.03 -.03 0",
        "back": "0 .03 .04 -.06 -.05 0", "drop": ".03 .03 .04 .05 .05 .03"}),
    "box": (1.1, None, {
        "near_arm": "guard punch guard guard", "far_arm": "guard guard guard punch",
        "drop": ".04 .05 .04 .05", "near_spine_twist": "0 -26 0 26", "near_yaw": "0 -8 0 8", "pitch": "4",
        "spine_flex": "8"}),
    "clap": (0.7, None, {"both_arm": "clap open", "neck_flex": "6 2"}),
    "stretch": (4.0, None, {
        "both_arm": "hang raised raised raised", "near_spine_side": "0 0 22 -20", "spine_flex": "0 -8 -4 -4",
        "near_shift": "0 0 -.03 .03"}),
    "lunge": (3.0, None, {
        "both_arm": "akimbo", "near_foot_ahead": "0 .3 .3 0", "near_foot_up": "0 0 0 .04",
        "far_foot_ahead": "0 -.02 -.02 0", "drop": "0 .1 .13 0", "back": "0 -.13 -.14 0"}),
}  # fmt: skip
SIGNED = ("spine_side", "spine_twist", "neck_side", "neck_twist", "shift", "yaw")
CHANNELS = (*(f"{side}_{name}" for side in SIDES for name in (*ARM, "foot_ahead", "foot_up", "foot_out")),
            *SIGNED, "spine_flex", "neck_flex", "pitch", "drop", "back", "rise")  # fmt: skip
REST = dict.fromkeys(CHANNELS, 0.0) | {"neck_flex": 4.0}
REST |= {f"{side}_{name}": value for side in SIDES for name, value in zip(ARM, ARMS["hang"], strict=True)}
# Standard deviation of the permanent sway, by the last word of a channel's name.
SWAY = {"flex": 2.0, "abduct": 2.0, "rotate": 4.0, "elbow": 4.0, "side": 1.2, "twist": 2.5, "pitch": 1.0,
        "yaw": 1.5, "shift": 0.006, "back": 0.005}  # fmt: skip
JITTER = np.ones(17)  # relative size of the detector's jitter for each joint
JITTER[[3, 6, 13, 16]], JITTER[[2, 5, 12, 15]] = 1.5, 1.2


Plan = list[tuple[str, float, float]]  # activities with their start and end in seconds
Lengths = dict[str, float]  # body lengths in meters
Channels = dict[str, np.ndarray]  # (T,) by the names of CHANNELS


def make_clips(
    count: int, frames: int = 405, seed: int = 0, noise: float = 1.0, fps: float = 50.0
) -> list[Clip]:
    """`count` clips of `frames` frames. Clip i of a seed does not depend on `count`.

    noise scales the simulated detector's errors. With 0 the 2D joints are exact projections with score 1.
    """
    return [_make_clip(number, frames, seed, noise, fps) for number in range(count)]


def load_split(name: str, count: int, frames: int = 405, noise: float = 1.0, fps: float = 50.0) -> list[Clip]:
    """Clips of a split of SPLITS; the splits have different people, motions and cameras."""
    return make_clips(count, frames, SPLITS[name], noise, fps)


def _make_clip(number: int, frames: int, seed: int, noise: float, fps: float) -> Clip:
    rng = np.random.default_rng((seed, number))
    skip = rng.uniform(0.6, 1.8)  # seconds that are cut off, so that a clip begins within an activity
    times = np.arange(frames + int(skip * fps)) / fps
    plan = _draw_plan(rng, number, times[-1] + 1)
    lengths = _draw_lengths(rng)
    weights = _activity_weights(plan, times)
    walk = _walk(rng, plan, times, lengths)
    channels = _animate(rng, plan, times, weights, walk.phase)
    world = _forward_kinematics(channels, walk, lengths)[-frames:]
    shares = dict.fromkeys([activity for activity, *_ in plan], 0.0)
    for (activity, *_), weight in zip(plan, weights[:, -frames:].sum(1), strict=True):
        shares[activity] += weight
    action = max(shares, key=lambda activity: shares[activity])  # the activity with the most frames
    camera = _draw_camera(rng, world)
    pose = camera.world_to_camera(world)
    exact = camera.project(pose)
    keypoints = np.concatenate([exact, np.ones((frames, 17, 1))], -1)
    if noise:
        keypoints = simulate_detector(rng, exact, noise)
    return Clip(f"{action} {seed}-{number}", action, keypoints, pose, camera, fps)


def _draw_plan(rng: Generator, number: int, seconds: float) -> Plan:
    """Consecutive activities; every second one is determined by the clip's number, the others are random."""
    plan: Plan = []
    names, start = list(ACTIVITIES), -0.5
    own = names[number % len(names)]
    while start < seconds:
        end = start + rng.uniform(2.4, 4.2)
        plan.append((own if len(plan) % 2 == 0 else names[rng.integers(len(names))], start, end))
        start = end
    return plan


def _draw_lengths(rng: Generator) -> Lengths:
    """Body lengths: a random stature times the table's proportions, each with a deviation of 3%."""
    stature = rng.normal(1.70, 0.09)
    names = ("thigh", "shank", "upper_arm", "forearm", "foot_height")
    ratios = {name: TABLE[name] for name in names} | {"hip": HIP, "shoulder": SHOULDER, "ball": 0.1}
    ratios |= {"lumbar": 0.14, "chest": 0.148, "head": 1.0}
    lengths = {name: stature * ratio * rng.normal(1, 0.03) for name, ratio in ratios.items()}
    return lengths | {"stature": stature}


def _interpolate_keys(keys: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Keyframes (n,) at equal intervals over a cycle, interpolated smoothly at phases (T,)."""
    position = phase * len(keys)
    first, weight = np.floor(position).astype(int), smoothstep(position % 1)
    return keys[first % len(keys)] * (1 - weight) + keys[(first + 1) % len(keys)] * weight


def _activity_weights(plan: Plan, times: np.ndarray) -> np.ndarray:
    """The weight (A, T) of each activity in each frame, with cross-fades of 0.7 s; the sum over A is 1."""
    starts, ends = (np.array([entry[i] for entry in plan])[:, None] for i in (1, 2))
    return smoothstep((times - starts) / 0.7 + 0.5) - smoothstep((times - ends) / 0.7 + 0.5)


def _animate(
    rng: Generator, plan: Plan, times: np.ndarray, weights: np.ndarray, phase: np.ndarray
) -> Channels:
    """All channels (T,) by name: the activities' keyframes, weighted, and sway, within the joint limits."""
    channels = {name: np.full(len(times), float(value)) for name, value in REST.items()}
    for (name, start, _), weight in zip(plan, weights, strict=True):
        seconds, gait, keys = ACTIVITIES[name]
        cycle = phase if gait else (times - start + 0.35) / (seconds * rng.uniform(0.85, 1.2))
        sides = dict(zip(("near", "far"), rng.permutation(list(SIDES)), strict=True))
        for channel, values in _channel_keys(keys, sides):
            amount = rng.uniform(0.88, 1.08)
            if channel == "rise":  # a jump: a parabola between two phases, with a height
                begin, end, top = values
                x = np.clip((cycle % 1 - begin) / (end - begin), 0, 1)
                channels[channel] += weight * amount * top * 4 * x * (1 - x)
            else:
                channels[channel] += weight * amount * (_interpolate_keys(values, cycle) - REST[channel])
    for name, values in channels.items():
        values += SWAY.get(name.rpartition("_")[2], 0) * _sway(rng, times)
        if name in LIMITS:
            np.clip(values, *LIMITS[name], out=values)
    return channels


def _channel_keys(keys: dict[str, str], sides: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Channels with their keyframes (n,): arms as four angles, near and far as the drawn sides."""
    for name, text in keys.items():
        prefix, _, base = name.partition("_")
        words = text.split()
        for side in SIDES if prefix == "both" else [sides.get(prefix, prefix)]:
            if base == "arm":
                for angle, values in zip(ARM, np.array([POSES[word] for word in words]).T, strict=True):
                    yield f"{side}_{angle}", values.astype(float)
            elif base in SIGNED:
                yield base, SIDES[side] * np.array(words, float)
            else:
                yield f"{side}_{base}" if side in SIDES else name, np.array(words, float)


def _sway(rng: Generator, times: np.ndarray) -> np.ndarray:
    """Noise (T,) with a standard deviation of about 1: a sum of sines between 0.1 and 1.2 Hz."""
    waves = np.sin(2 * np.pi * (rng.uniform(0.1, 1.2, (5, 1)) * times + rng.random((5, 1))))
    return (waves * rng.uniform(0.3, 1, (5, 1))).sum(0)


@dataclass(frozen=True)
class Walk:
    """The locomotion of a clip."""

    phase: np.ndarray  # (T,) cycles of two steps
    feet: dict[str, np.ndarray]  # ankles (T, 3) by side
    position: np.ndarray  # (T, 2): x, z of the body
    heading: np.ndarray  # (T,) degrees


@dataclass(frozen=True)
class _Path:
    """A walk as a function of its phase."""

    phases: np.ndarray  # (G,)
    gait: np.ndarray  # (5, G): stride, sidestep, turn in degrees per cycle; share on the floor, lift
    ahead: np.ndarray  # (2, G): unit vector x, z
    left: np.ndarray  # (2, G)
    position: np.ndarray  # (2, G)

    def read(self, rows: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """Rows (N, G) or (G,) at phases (T,): (N, T)."""
        return np.stack([np.interp(phase, self.phases, row) for row in np.atleast_2d(rows)])


STANDING = 0.06  # phase of standing with both feet down: the right foot lifts at 0.12, the left landed at 0


def _walk(rng: Generator, plan: Plan, times: np.ndarray, lengths: Lengths) -> Walk:
    """Draw the walk of a clip.

    The path is a function of the phase, not of time, so that a person who stops stands on two feet: between
    activities with a gait the phase rests while both feet are down. Strides grow from zero and fade.
    """
    phase, stages, rest = np.full(len(times), STANDING), [], STANDING
    for name, start, end in plan:
        if gait := ACTIVITIES[name][1]:
            cadence, stride, sidestep, turn, duty, lift = gait
            cadence, stride = cadence * rng.uniform(0.9, 1.12), stride * rng.uniform(0.8, 1.12)
            fine = np.arange(start + 0.2, end - 0.2, 0.01)
            pace = np.cumsum(smoothstep((fine - fine[0]) / 0.4) * smoothstep((fine[-1] - fine) / 0.4))
            steps = max(2, round((end - start - 0.8) * cadence * 2))
            first, rest = rest, rest + steps / 2
            phase += np.interp(times, fine, pace / pace[-1]) * steps / 2
            side = rng.choice([-1, 1])
            turn = side * turn * rng.uniform(0.5, 1)
            stages.append((first, rest, stride, sidestep * side, turn, duty, lift))
    phases = np.arange(-1, rest + 2, 0.005)
    gaits = np.zeros((5, len(phases)))
    gaits[3] = 0.62  # share on the floor while standing
    for first, last, stride, sidestep, turn, duty, lift in stages:
        gap = np.minimum(phases - first, last - phases)
        growth = smoothstep(gap / 0.6)
        gaits[:3] += growth * np.array([[stride], [sidestep], [turn / max(last - first - 0.6, 0.5)]])
        gaits[3:] += smoothstep((gap - 0.25) / 0.3) * np.array([[duty - 0.62], [lift]])
    heading = np.cumsum(gaits[2]) * 0.005 + rng.uniform(0, 360)
    ahead = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])  # x, z
    left = np.array([ahead[1], -ahead[0]])
    position = np.cumsum((gaits[0] * ahead + gaits[1] * left) * lengths["stature"], 1) * 0.005
    path = _Path(phases, gaits, ahead, left, position)
    stance = rng.uniform(0.05, 0.075) * lengths["stature"]  # distance of a foot from the path
    feet = {side: _foot(path, phase, side, stance, lengths) for side in SIDES}
    return Walk(phase, feet, path.read(position, phase).T, path.read(heading, phase)[0])


def _foot(path: _Path, phase: np.ndarray, side: str, stance: float, lengths: Lengths) -> np.ndarray:
    """The ankle (T, 3) of one foot: standing on a footprint, then swinging to the next one."""
    delay = (side == "right") / 2  # the right foot is half a cycle behind

    def footprint(begin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Share on the floor, phase of the footprint, and its x, z, for a stance that begins at a phase."""
        duty = path.read(path.gait[3], begin + 0.3)[0]
        middle = begin + 0.39 * duty
        offset = SIDES[side] * stance * path.read(path.left, middle)
        return duty, middle, path.read(path.position, middle) + offset

    cycle, within = np.floor(phase + delay), (phase + delay) % 1
    duty, middle, current = footprint(cycle - delay)
    following = footprint(cycle + 1 - delay)[2]
    swing = np.clip((within - duty) / (1 - duty), 0, 1)
    stride = np.clip(path.read(path.gait[0], middle)[0] / 0.7, 0, 1.2)
    lift = path.read(path.gait[4], cycle + 1 - delay - 0.2)[0]  # at mid swing
    heel = np.radians(52) * stride * smoothstep(within / duty * 2 - 1) * (1 - smoothstep(swing / 0.75))
    flat = current + (following - current) * smoothstep(swing)
    flat = flat + path.read(path.ahead, middle) * lengths["ball"] * (1 - np.cos(heel))
    up = lengths["foot_height"] + lengths["ball"] * np.sin(heel)
    up = up + lift * lengths["stature"] * np.sin(np.pi * smoothstep(swing)) ** 2
    return np.stack([flat[0], up, flat[1]], -1)


def _rotation(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Right-handed rotations (T, 3, 3) about x, y or z (0, 1, 2) by angles (T,)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrices = np.zeros((len(c), 3, 3))
    matrices[:, axis, axis] = 1
    matrices[:, a, a], matrices[:, a, b], matrices[:, b, a], matrices[:, b, b] = c, -s, s, c
    return matrices


def _forward_kinematics(channels: Channels, walk: Walk, lengths: Lengths) -> np.ndarray:
    """World joints (T, 17, 3) from the channels, the walk and the body lengths."""
    joints = np.zeros((len(walk.heading), 17, 3))
    pelvis = _rotation(1, walk.heading + channels["yaw"]) @ _rotation(0, channels["pitch"])
    _place_legs(joints, channels, walk, pelvis, lengths)
    _place_upper_body(joints, channels, pelvis, lengths)
    return joints


def _place_legs(
    joints: np.ndarray, channels: Channels, walk: Walk, pelvis: np.ndarray, lengths: Lengths
) -> None:
    """Set the hip center and both legs in joints (T, 17, 3); pelvis: its rotations (T, 3, 3)."""
    stature, facing = lengths["stature"], _rotation(1, walk.heading)
    shift, back = channels["shift"], channels["back"]
    offset = np.stack([shift, np.zeros_like(shift), -back], -1) * stature
    joints[:, 0, [0, 2]] = walk.position
    joints[:, 0] += np.einsum("tij,tj->ti", facing, offset)
    feet, hips, reach = {}, {}, 0.998 * (lengths["thigh"] + lengths["shank"])
    wanted = lengths["foot_height"] + lengths["thigh"] + lengths["shank"] - channels["drop"] * stature
    heights = [wanted + channels["rise"] * stature]
    for side, sign in SIDES.items():
        out, up, ahead = (channels[f"{side}_foot_{name}"] for name in ("out", "up", "ahead"))
        move = np.stack([sign * out, up, ahead], -1)
        feet[side] = walk.feet[side] + np.einsum("tij,tj->ti", facing, move * stature)
        feet[side][:, 1] += channels["rise"] * stature
        hips[side] = pelvis[:, :, 0] * sign * lengths["hip"]
        apart = (joints[:, 0] + hips[side] - feet[side])[:, [0, 2]]
        highest = np.sqrt(np.maximum(reach**2 - (apart**2).sum(-1), 1e-4))
        heights.append(feet[side][:, 1] + highest - hips[side][:, 1])
    # A smooth minimum: the pelvis is as high as wanted and as both legs allow.
    joints[:, 0, 1] = -0.005 * np.log(np.exp(-np.array(heights) / 0.005).sum(0))
    for side, sign in SIDES.items():
        first = 4 if side == "left" else 1
        knee_axis = _rotation(1, walk.heading + sign * 8)[:, :, 0]
        joints[:, first : first + 3] = _leg(joints[:, 0] + hips[side], feet[side], knee_axis, lengths)


def _place_upper_body(joints: np.ndarray, channels: Channels, pelvis: np.ndarray, lengths: Lengths) -> None:
    """Set trunk, head and arms in joints (T, 17, 3), from the hip center on."""
    half, full = (  # rotations of the lumbar spine, which takes half of the bend, and of the chest
        pelvis @ _rotation(1, channels["spine_twist"] * share) @ _rotation(2, -channels["spine_side"] * share)
        @ _rotation(0, channels["spine_flex"] * share) for share in (0.5, 1.0)
    )  # fmt: skip
    joints[:, 7] = joints[:, 0] + half[:, :, 1] * lengths["lumbar"]
    joints[:, 8] = joints[:, 7] + full[:, :, 1] * lengths["chest"]
    head = full @ _rotation(1, channels["neck_twist"]) @ _rotation(2, -channels["neck_side"])
    head = head @ _rotation(0, channels["neck_flex"])
    joints[:, 9] = joints[:, 8] + head @ np.array([0, 0.088, 0.05]) * lengths["head"]
    joints[:, 10] = joints[:, 9] + head @ np.array([0, 0.092, -0.036]) * lengths["head"]
    for side, sign in SIDES.items():
        first = 11 if side == "left" else 14
        flex, abduct, rotate, elbow = (channels[f"{side}_{name}"] for name in ARM)
        raised = np.clip(np.maximum(flex, abduct), 0, None) / 180
        across = (full @ _rotation(2, sign * (25 * raised - 6)))[:, :, 0]  # a raised arm lifts the shoulder
        joints[:, first] = joints[:, 8] + across * (sign * lengths["shoulder"])
        upper = full @ _rotation(0, -flex) @ _rotation(2, sign * abduct) @ _rotation(1, sign * rotate)
        joints[:, first + 1] = joints[:, first] - upper[:, :, 1] * lengths["upper_arm"]
        forearm = (upper @ _rotation(0, -elbow))[:, :, 1]
        joints[:, first + 2] = joints[:, first + 1] - forearm * lengths["forearm"]


def _leg(hip: np.ndarray, ankle: np.ndarray, axis: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Inverse kinematics of a leg: hip, knee, ankle (T, 3, 3), the knee bent forward about an axis (T, 3)."""
    a, b = lengths["thigh"], lengths["shank"]
    along = ankle - hip
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    along = along / length
    length = np.clip(length, np.sqrt(a * a + b * b - 2 * a * b * np.cos(np.radians(48))), a + b)
    front = np.cross(along, axis)
    front /= np.linalg.norm(front, axis=-1, keepdims=True)
    down = (a * a - b * b + length**2) / (2 * length)  # from the hip to the foot of the knee's perpendicular
    knee = hip + along * down + front * np.sqrt(np.maximum(a * a - down**2, 0))
    return np.stack([hip, knee, hip + along * length], 1)


def _draw_camera(rng: Generator, world: np.ndarray) -> Camera:
    """A random camera that looks at the joints (T, 17, 3) and has all of them in its image."""
    low, high = world.min((0, 1)), world.max((0, 1))
    middle = (low + high) / 2
    distance = rng.uniform(3.2, 5.5) + np.linalg.norm((high - low)[[0, 2]]) / 2
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.6)
    eye = np.array([middle[0] + distance * np.sin(angle), height, middle[2] + distance * np.cos(angle)])
    forward = middle + rng.normal(0, 0.1, 3) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    points = world @ rotation.T - rotation @ eye
    widest = np.abs(points[..., :2] / points[..., 2:]).max()
    focal = min(rng.uniform(1000, 1400), 0.46 * SIZE / widest)
    center = np.array([SIZE / 2, SIZE / 2]) + rng.normal(0, 8, 2)
    return Camera(rotation, -rotation @ eye, (SIZE, SIZE), np.full(2, focal), center)


def simulate_detector(rng: Generator, exact: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """Detections (T, J, 3), x, y, score, of exact joints (T, J, 2) in pixels; choice 3."""
    frames, joints = exact.shape[:2]
    person = np.ptp(exact, 1).max(-1)  # (T,) pixels
    unit = noise * 0.008 * np.median(person)  # standard deviation in pixels where JITTER is 1
    scale = unit * JITTER[:, None]  # (J, 1)
    correlation = 0.8  # with the frame before
    jitter = rng.standard_normal((frames, joints, 2))
    jitter[1:] *= np.sqrt(1 - correlation**2)  # keeps the variance at 1
    error = signal.lfilter([1], [1, -correlation], jitter, axis=0) * scale
    starts = rng.random((frames, joints)) < 0.002  # of bursts
    for frame, joint in np.argwhere(starts):
        end = frame + rng.integers(3, 11)
        error[frame:end, joint] += rng.normal(0, 8, 2) * scale[joint]
    size = np.linalg.norm(error, axis=-1) / unit
    score = np.clip(0.95 * np.exp(-((size / 6) ** 2)) + rng.normal(0, 0.03, size.shape), 0.02, 1)
    return np.concatenate([exact + error, score[..., None]], -1)
