"""The embedded motion: people made by rule who walk, sit, throw and talk before a camera, drawn from a seed.

Nothing is read from a file. A clip strings activities together, cross-faded; an activity moves the pelvis,
the spine, the arms and the feet by a few keys; the feet step from print to print, and knees follow from
hip and ankle (two bones of known length). Proportions and joint ranges are those of the synthetic pictures
(datasets/synthetic/anatomy.py: Drillis and Contini, 1966; AAOS, 1965). World axes: x to the left of someone
who looks along z, y up, the floor at y = 0; meters, degrees.

Choices made where no source speaks:
1. Keys, cadences and strides are set by hand, by the look of it. A net that does well here has learned this
   motion, not Human3.6M's: figures on it compare methods and are no benchmark.
2. A foot on the floor stays where it was put; late in a stride its heel rises about the ball. The pelvis
   sinks where a leg would have to stretch to more than 0.998 of its length.
3. The detector errs by an AR(1) jitter that grows with the person's size in pixels and towards hands and
   feet, and now and then loses a joint for some frames; its scores fall with the error.
"""

import numpy as np

from posebook.datasets.synthetic.anatomy import ARMS, HIP, LIMITS, SHOULDER, SIDES, TABLE
from posebook.lifting.camera import Camera
from posebook.lifting.clips import Clip

SPLITS = {"train": 0, "val": 1}  # seeds
SIZE = 1000  # pixels: height and width of every picture
ARM = ("shoulder_flex", "shoulder_abduct", "shoulder_rotate", "elbow")
POSES = ARMS | {
    "wave_in": (6, 88, 80, 48), "punch": (84, 6, 0, 8), "guard": (38, 8, -30, 122), "clap": (62, 10, -38, 62),
    "open": (62, 42, 0, 40), "cocked": (-10, 100, 76, 96), "thrown": (98, 14, 0, 12), "low": (30, 6, 0, 20),
    "out_front": (72, 44, 0, 20), "back": (-30, 12, 0, 14),
}  # fmt: skip
# Activities. steps: cycles of two steps a second; stride ahead and aside, over stature; turn at most, in
# degrees; share of the cycle that a foot stands; lift of a foot, over stature. Keys, spread evenly over a
# cycle of so many seconds (of two steps where there are any), of: arms (by the names of POSES), angles of
# LIMITS, pelvis (drop, back, shift, rise over stature; pitch, yaw), feet (ahead, up, out, over stature).
# near and far are the sides of a right- or left-handed draw; what turns or leans counts to the side named.
ACTIVITIES = {
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
REST = dict.fromkeys(CHANNELS, 0.0) | {"neck_flex": 4.0, "drop": 0.0}
REST |= {f"{side}_{name}": value for side in SIDES for name, value in zip(ARM, ARMS["hang"], strict=True)}
# Standard deviation of the sway that is never absent, by the end of a channel's name.
SWAY = {"flex": 2.0, "abduct": 2.0, "rotate": 4.0, "elbow": 4.0, "side": 1.2, "twist": 2.5, "pitch": 1.0,
        "yaw": 1.5, "shift": 0.006, "back": 0.005}  # fmt: skip
JITTER = np.ones(17)  # of the detector, by joint
JITTER[[3, 6, 13, 16]], JITTER[[2, 5, 12, 15]] = 1.5, 1.2


def make_clips(
    count: int, frames: int = 405, seed: int = 0, noise: float = 1.0, fps: float = 50.0
) -> list[Clip]:
    """`count` clips of `frames` frames: clip i of a seed is the same however many are asked for.

    noise scales what the detector adds to the 2D joints; with 0 they are the exact projections, scores 1.
    """
    return [_clip(number, frames, seed, noise, fps) for number in range(count)]


def load_split(name: str, count: int, frames: int = 405, noise: float = 1.0, fps: float = 50.0) -> list[Clip]:
    """Clips of a split of SPLITS: other people, other draws of every motion, other cameras."""
    return make_clips(count, frames, SPLITS[name], noise, fps)


def _clip(number: int, frames: int, seed: int, noise: float, fps: float) -> Clip:
    rng = np.random.default_rng((seed, number))
    skip = rng.uniform(0.6, 1.8)  # seconds: a clip begins in the midst of something
    times = np.arange(frames + int(skip * fps)) / fps
    plan = _plan(rng, number, times[-1] + 1)
    size = _build(rng)
    channels, feet, place, heading, weights = _perform(rng, plan, times, size)
    world = _stand(channels, feet, place, heading, size)[-frames:]
    shares: dict[str, float] = {}
    for (activity, *_), weight in zip(plan, weights[:, -frames:].sum(1), strict=True):
        shares[activity] = shares.get(activity, 0) + weight
    action = max(shares, key=shares.get)
    camera = _camera(rng, world)
    pose = camera.see(world)
    exact = camera.project(pose)
    keypoints = np.concatenate([exact, np.ones((frames, 17, 1))], -1)
    if noise:
        keypoints = simulate_detector(rng, exact, noise)
    return Clip(f"{action} {seed}-{number}", action, keypoints, pose, camera, fps)


def _plan(rng: np.random.Generator, number: int, seconds: float) -> list[tuple[str, float, float]]:
    """Activities with their beginnings and ends in seconds; every other one is the clip's own."""
    names, plan, start = list(ACTIVITIES), [], -0.5
    own = names[number % len(names)]
    while start < seconds:
        end = start + rng.uniform(2.4, 4.2)
        plan.append((own if len(plan) % 2 == 0 else names[rng.integers(len(names))], start, end))
        start = end
    return plan


def _build(rng: np.random.Generator) -> dict[str, float]:
    """Lengths in meters of one person: the table's, each a little off, by a stature."""
    stature = rng.normal(1.70, 0.09)
    names = ("thigh", "shank", "upper_arm", "forearm", "foot_height")
    size = {name: TABLE[name] for name in names} | {"hip": HIP, "shoulder": SHOULDER, "ball": 0.1}
    size |= {"lumbar": 0.14, "chest": 0.148, "head": 1.0}
    return {name: stature * length * rng.normal(1, 0.03) for name, length in size.items()} | {
        "stature": stature
    }


def smooth(x: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, a smooth step between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _along(keys: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Keys (n,) spread evenly over a cycle, read at phases (T,) of it, smoothly."""
    at = phase * len(keys)
    first, rest = np.floor(at).astype(int), smooth(at % 1)
    return keys[first % len(keys)] * (1 - rest) + keys[(first + 1) % len(keys)] * rest


def _perform(rng, plan, times, size) -> tuple[dict, dict, np.ndarray, np.ndarray, np.ndarray]:
    """A plan carried out: channels (T,) by name, then as `_walkway`; last the activities' weights (A, T)."""
    starts, ends = (np.array(column)[:, None] for column in list(zip(*plan, strict=True))[1:])
    weights = smooth((times - starts) / 0.7 + 0.5) - smooth((times - ends) / 0.7 + 0.5)  # sum to 1
    phase, feet, place, heading = _walkway(rng, plan, times, size)
    channels = {name: np.full(len(times), float(value)) for name, value in REST.items()}
    for (name, start, _), weight in zip(plan, weights, strict=True):
        seconds, steps, keys = ACTIVITIES[name]
        cycle = phase if steps else (times - start + 0.35) / (seconds * rng.uniform(0.85, 1.2))
        near = rng.permutation(list(SIDES))
        for channel, given in _sided(keys, dict(zip(("near", "far"), near, strict=True))):
            amount = rng.uniform(0.88, 1.08)
            if channel == "rise":  # a parabola between two phases, to a height
                begin, end, top = given
                x = np.clip((cycle % 1 - begin) / (end - begin), 0, 1)
                channels[channel] += weight * amount * top * 4 * x * (1 - x)
            else:
                channels[channel] += weight * amount * (_along(given, cycle) - REST[channel])
    for name, values in channels.items():
        values += SWAY.get(name.rpartition("_")[2], 0) * _sway(rng, times)
        if name in LIMITS:
            np.clip(values, *LIMITS[name], out=values)
    return channels, feet, place, heading, weights


def _sided(keys: dict[str, str], sides: dict[str, str]):
    """Channels with their keys (n,): arms by their four angles, near and far by the sides drawn."""
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


def _sway(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Band-limited noise (T,) of deviation about 1: sines between 0.1 and 1.2 Hz."""
    waves = np.sin(2 * np.pi * (rng.uniform(0.1, 1.2, (5, 1)) * times + rng.random((5, 1))))
    return (waves * rng.uniform(0.3, 1, (5, 1))).sum(0)


def _walkway(rng, plan, times, size) -> tuple[np.ndarray, dict, np.ndarray, np.ndarray]:
    """Steps: their phase (T,), feet by side (ankles (T, 3)), the body's place (T, 2) and heading (T,).

    The way is laid out over the phase, so that who stands still stands on two feet: between activities that
    step the phase rests where both are down, and strides grow from nothing and fade.
    """
    rest = 0.06  # of a cycle: the right foot leaves at 0.12, the left one has come at 0
    phase, stages = np.full(len(times), rest), []
    for name, start, end in plan:
        if steps := ACTIVITIES[name][1]:
            cadence, stride, aside, turn, duty, lift = steps
            cadence, stride = cadence * rng.uniform(0.9, 1.12), stride * rng.uniform(0.8, 1.12)
            fine = np.arange(start + 0.2, end - 0.2, 0.01)
            pace = np.cumsum(smooth((fine - fine[0]) / 0.4) * smooth((fine[-1] - fine) / 0.4))
            halves = max(2, round((end - start - 0.8) * cadence * 2))
            first, rest = rest, rest + halves / 2
            phase += np.interp(times, fine, pace / pace[-1]) * halves / 2
            side = rng.choice([-1, 1])
            turn = side * turn * rng.uniform(0.5, 1)
            stages.append((first, rest, stride, aside * side, turn, duty, lift))
    grid = np.arange(-1, rest + 2, 0.005)
    way = np.zeros((5, len(grid)))  # stride, aside, turn in degrees, duty, lift: each a cycle
    way[3] = 0.62
    for first, last, stride, aside, turn, duty, lift in stages:
        gap = np.minimum(grid - first, last - grid)
        grown = smooth(gap / 0.6)
        way[:3] += grown * np.array([[stride], [aside], [turn / max(last - first - 0.6, 0.5)]])
        way[3:] += smooth((gap - 0.25) / 0.3) * np.array([[duty - 0.62], [lift]])
    heading = np.cumsum(way[2]) * 0.005 + rng.uniform(0, 360)
    ahead = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])  # x, z
    left = np.array([ahead[1], -ahead[0]])
    place = np.cumsum((way[0] * ahead + way[1] * left) * size["stature"], 1) * 0.005

    def read(values, at):  # rows over the way (N, G) at phases (T,): (N, T)
        return np.stack([np.interp(at, grid, row) for row in np.atleast_2d(values)])

    feet, stance = {}, rng.uniform(0.05, 0.075) * size["stature"]
    for side, sign in SIDES.items():
        own = phase + (side == "right") / 2
        cycle, within = np.floor(own), own % 1
        prints = []
        for number in (cycle, cycle + 1):
            begun = number - (side == "right") / 2  # where on the way this stance begins
            duty = read(way[3], begun + 0.3)[0]
            at = begun + 0.39 * duty
            prints.append((duty, read(place, at) + sign * stance * read(left, at), at))
        (duty, was, at), (_, will, _) = prints
        swing = np.clip((within - duty) / (1 - duty), 0, 1)
        stride, lift = np.clip(read(way[0], at)[0] / 0.7, 0, 1.2), read(way[4], begun - 0.2)[0]  # mid swing
        heel = np.radians(52) * stride * smooth(within / duty * 2 - 1) * (1 - smooth(swing / 0.75))
        flat = was + (will - was) * smooth(swing)
        flat = flat + read(ahead, at) * size["ball"] * (1 - np.cos(heel))
        up = size["foot_height"] + size["ball"] * np.sin(heel)
        up = up + lift * size["stature"] * np.sin(np.pi * smooth(swing)) ** 2
        feet[side] = np.stack([flat[0], up, flat[1]], -1)  # (T, 3)
    return phase, feet, read(place, phase).T, read(heading, phase)[0]


def _turn(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Rotations (T, 3, 3) about x, y or z (0, 1, 2), right-handed, by angles (T,)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    made = np.zeros((len(c), 3, 3))
    made[:, axis, axis] = 1
    made[:, a, a], made[:, a, b], made[:, b, a], made[:, b, b] = c, -s, s, c
    return made


def _stand(at, feet, place, heading, size) -> np.ndarray:
    """Forward kinematics: joints (T, 17, 3) of the world, from what `_perform` gives."""
    stature, feet = size["stature"], dict(feet)
    facing = _turn(1, heading)
    pelvis = _turn(1, heading + at["yaw"]) @ _turn(0, at["pitch"])
    joint = np.zeros((len(heading), 17, 3))

    # The pelvis over the way, then the feet, then as high as the legs allow.
    offset = np.stack([at["shift"], np.zeros_like(heading), -at["back"]], -1) * stature
    joint[:, 0, [0, 2]] = place
    joint[:, 0] += np.einsum("tij,tj->ti", facing, offset)
    hips, reach = {}, 0.998 * (size["thigh"] + size["shank"])
    wanted = size["foot_height"] + size["thigh"] + size["shank"] - at["drop"] * stature
    heights = [wanted + at["rise"] * stature]
    for side, sign in SIDES.items():
        move = np.stack([sign * at[f"{side}_foot_out"], at[f"{side}_foot_up"], at[f"{side}_foot_ahead"]], -1)
        feet[side] = feet[side] + np.einsum("tij,tj->ti", facing, move * stature)
        feet[side][:, 1] += at["rise"] * stature
        hips[side] = pelvis[:, :, 0] * sign * size["hip"]
        apart = (joint[:, 0] + hips[side] - feet[side])[:, [0, 2]]
        most = np.sqrt(np.maximum(reach**2 - (apart**2).sum(-1), 1e-4))
        heights.append(feet[side][:, 1] + most - hips[side][:, 1])
    joint[:, 0, 1] = -0.005 * np.log(np.exp(-np.array(heights) / 0.005).sum(0))  # below the least of them

    for side, sign in SIDES.items():
        first = 4 if side == "left" else 1
        hip = joint[:, 0] + hips[side]
        bend = _turn(1, heading + sign * 8)[:, :, 0]  # the axis a knee turns about
        joint[:, first : first + 3] = np.stack(_leg(hip, feet[side], bend, size), 1)

    # The trunk, half of its bend in the loins; the head; the arms.
    half, full = (
        pelvis @ _turn(1, at["spine_twist"] * part) @ _turn(2, -at["spine_side"] * part)
        @ _turn(0, at["spine_flex"] * part) for part in (0.5, 1.0)
    )  # fmt: skip
    joint[:, 7] = joint[:, 0] + half[:, :, 1] * size["lumbar"]
    joint[:, 8] = joint[:, 7] + full[:, :, 1] * size["chest"]
    head = full @ _turn(1, at["neck_twist"]) @ _turn(2, -at["neck_side"]) @ _turn(0, at["neck_flex"])
    joint[:, 9] = joint[:, 8] + head @ np.array([0, 0.088, 0.05]) * size["head"]
    joint[:, 10] = joint[:, 9] + head @ np.array([0, 0.092, -0.036]) * size["head"]
    for side, sign in SIDES.items():
        first = 11 if side == "left" else 14
        flex, abduct, rotate, elbow = (at[f"{side}_{name}"] for name in ARM)
        raised = np.clip(np.maximum(flex, abduct), 0, None) / 180
        joint[:, first] = joint[:, 8] + (full @ _turn(2, sign * (25 * raised - 6)))[:, :, 0] * (
            sign * size["shoulder"]
        )
        upper = full @ _turn(0, -flex) @ _turn(2, sign * abduct) @ _turn(1, sign * rotate)
        joint[:, first + 1] = joint[:, first] - upper[:, :, 1] * size["upper_arm"]
        joint[:, first + 2] = joint[:, first + 1] - (upper @ _turn(0, -elbow))[:, :, 1] * size["forearm"]
    return joint


def _leg(hip, ankle, axis, size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hip, knee and ankle (T, 3) of a leg between two points, bent forwards about an axis (T, 3)."""
    a, b = size["thigh"], size["shank"]
    away = ankle - hip
    length = np.linalg.norm(away, axis=-1, keepdims=True)
    along = away / length
    length = np.clip(length, np.sqrt(a * a + b * b - 2 * a * b * np.cos(np.radians(48))), a + b)
    front = np.cross(along, axis)
    front /= np.linalg.norm(front, axis=-1, keepdims=True)
    down = (a * a - b * b + length**2) / (2 * length)
    knee = hip + along * down + front * np.sqrt(np.maximum(a * a - down**2, 0))
    return hip, knee, hip + along * length


def _camera(rng: np.random.Generator, world: np.ndarray) -> Camera:
    """A camera that looks at where the joints (T, 17, 3) are, from one side, and has all of them in view."""
    low, high = world.min((0, 1)), world.max((0, 1))
    middle = (low + high) / 2
    far = rng.uniform(3.2, 5.5) + np.linalg.norm((high - low)[[0, 2]]) / 2
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.6)
    eye = np.array([middle[0] + far * np.sin(angle), height, middle[2] + far * np.cos(angle)])
    forward = middle + rng.normal(0, 0.1, 3) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    seen = world @ rotation.T - rotation @ eye
    widest = np.abs(seen[..., :2] / seen[..., 2:]).max()
    focal = min(rng.uniform(1000, 1400), 0.46 * SIZE / widest)
    center = np.array([SIZE / 2, SIZE / 2]) + rng.normal(0, 8, 2)
    return Camera(rotation, -rotation @ eye, (SIZE, SIZE), np.full(2, focal), center)


def simulate_detector(rng: np.random.Generator, exact: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """What a detector makes of exact joints (T, J, 2) in pixels: (T, J, 3), x, y, score; choice 3."""
    frames, joints = exact.shape[:2]
    person = np.ptp(exact, 1).max(-1)  # (T,) pixels
    scale = noise * 0.008 * np.median(person) * JITTER[:, None]  # (J, 1)
    kept = 0.8  # from a frame to the next
    drawn = rng.standard_normal((frames, joints, 2))
    drawn[1:] *= np.sqrt(1 - kept**2)
    for frame in range(1, frames):
        drawn[frame] += kept * drawn[frame - 1]
    error = drawn * scale
    lost = rng.random((frames, joints)) < 0.002  # where a burst begins
    for frame, joint in np.argwhere(lost):
        until = frame + rng.integers(3, 11)
        error[frame:until, joint] += rng.normal(0, 8, 2) * scale[joint]
    size = np.linalg.norm(error, axis=-1) / (noise * 0.008 * np.median(person))
    score = np.clip(0.95 * np.exp(-((size / 6) ** 2)) + rng.normal(0, 0.03, size.shape), 0.02, 1)
    return np.concatenate([exact + error, score[..., None]], -1)
