# SPDX-License-Identifier: Apache-2.0
"""One rule for each thing that another pipeline may have done: from the differences that the detective found. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from shipsight.doctor.finding import Figure, Finding, Severity
from shipsight.doctor.preprocessing.evidence import Difference, PreprocessingEvidence
from shipsight.doctor.rule import Rule

__all__ = ["RULES"]

_COSTS = 0.02


class _Step(Rule[PreprocessingEvidence]):
    """Tells a difference of its own id."""

    what: ClassVar[str]
    remedy: ClassVar[str]
    is_grave: ClassVar[bool] = True
    """Whether it is wrong whatever the images at hand show."""

    def look(self, evidence: PreprocessingEvidence) -> Iterable[Finding]:
        """Returns the finding where this step differs."""
        for one in evidence.differences:
            if one.rule == self.id:
                yield self._tell(evidence, one)

    def _tell(self, evidence: PreprocessingEvidence, one: Difference) -> Finding:
        rest = evidence.residual
        if evidence.is_tensor:
            left = (
                f"the tensor made again so is {rest.mean:.2f} levels of 255 off on average ({rest.worst:.1f} at most), "
                f"without it {one.rival:.2f}"
            )
        else:
            left = f"answers made so agree to {1 - rest.mean:.2f} with those given, without it to {1 - one.rival:.2f}"
        images = "1 image" if evidence.images == 1 else f"{evidence.images} images"
        severity = Severity.NOTE
        if one.lost is None or one.lost >= _COSTS:
            severity = Severity.ERROR if self.is_grave or (one.lost or 0) >= _COSTS else Severity.WARNING
        elif self.is_grave:
            severity = Severity.WARNING
        # What cannot be fed to the model at all costs whatever it is fed for.
        weight = 1.0 if one.lost is None and self.is_grave else one.lost or 0.0
        figures: dict[str, Figure | list[Figure]] = {
            "images": evidence.images,
            "residual": rest.mean,
            "residual_without": one.rival,
            "share_lost": one.lost,
            **dict(one.figures),
        }
        return Finding(
            rule=self.id,
            severity=severity,
            what=self.what,
            evidence=f"{one.words}: {left}; {images}.",
            remedy=self.remedy,
            weight=weight,
            certainty=one.certainty,
            figures=figures,
            pictures=evidence.pictures,
        )


class ChannelsSwapped(_Step):
    """The tensor's channels hold the colours in the other order."""

    id = "channels-swapped"
    title = "Red and blue exchanged"
    what = "The other program feeds the colours in the wrong order: red stands where blue should."
    remedy = "Convert after decoding: cv2.cvtColor(image, cv2.COLOR_BGR2RGB), or leave out a second conversion."


class GreyInput(_Step):
    """All three channels hold the grey of the image."""

    id = "grey-input"
    title = "Colours left out"
    what = "The other program feeds grey images to a model that was trained on colours."
    remedy = "Decode with colours: cv2.IMREAD_COLOR, or Image.convert('RGB') from the file itself."


class ScaleMissing(_Step):
    """Levels from 0 to 255 stand in the tensor as they are."""

    id = "scale-missing"
    title = "Not divided by 255"
    what = "The other program feeds levels from 0 to 255 where the model takes scaled ones."
    remedy = "Divide by 255 as float32 before the model."


class ScaleTwice(_Step):
    """Levels were divided by 255 twice."""

    id = "scale-twice"
    title = "Divided by 255 twice"
    what = "The other program divides by 255 twice: the model sees an almost black image."
    remedy = "Divide once: many conversions to tensors divide by themselves, and so do some exported graphs."


class NormalizedImagenet(_Step):
    """Values were normalized with ImageNet's mean and deviation."""

    id = "normalized-imagenet"
    title = "Normalized as for ImageNet"
    what = "The other program normalizes with ImageNet's mean, which this model was not trained with."
    remedy = "Leave out the normalization by mean and deviation; only scale as the card says."


class RangeMinusOne(_Step):
    """Values lie between -1 and 1."""

    id = "range-minus-one"
    title = "Scaled to -1 and 1"
    what = "The other program scales to -1 and 1, which this model was not trained with."
    remedy = "Divide by 255 and subtract nothing."


class ValuesDiffer(_Step):
    """Levels were scaled or shifted in a way that has no name."""

    id = "values-differ"
    title = "Scaled or shifted otherwise"
    what = "The other program scales or shifts the levels otherwise than the model takes them."
    remedy = "Scale as the card's input contract says: scale, mean and std of shipsight inspect BUNDLE --json."


class VideoRange(_Step):
    """Levels of video, 16 to 235, were taken for full ones, or the other way round."""

    id = "video-range"
    title = "Levels of video"
    what = "The other program mistakes levels of video (16 to 235) for full ones, or the other way round."
    remedy = "Tell the decoder the range: full range for JPEG, limited for most video, and convert once."


class GammaDiffers(_Step):
    """Levels were bent by a power."""

    id = "gamma-differs"
    title = "Another gamma"
    what = "The other program bends the levels by a gamma that training did not have."
    remedy = "Feed the levels as they are in the file, without linear light or gamma correction."


class Stretched(_Step):
    """The image was stretched to the size where it should be letterboxed or cropped."""

    id = "stretched"
    title = "Stretched"
    what = "The other program stretches images to the model's size: shapes are distorted."
    remedy = "Resize by one factor for both sides and pad the rest, as the card's fit says."


class Cropped(_Step):
    """The middle was cut out where the whole image should be fed."""

    id = "cropped"
    title = "Cropped"
    what = "The other program cuts out the middle: what lies at the edges is never seen."
    remedy = "Resize the whole image by one factor and pad the rest, as the card's fit says."


class LetterboxAdded(_Step):
    """The image was padded where the model takes a crop."""

    id = "letterboxed"
    title = "Padded instead of cropped"
    what = "The other program pads images where the model was trained on the middle, cut out."
    remedy = "Resize the shorter side to the model's and cut out the middle."


class PaddingValue(_Step):
    """The padding has another level."""

    id = "padding-value"
    title = "Another level of padding"
    what = "The other program pads with another level than the model was trained with."
    remedy = "Pad with the card's pad_value (114 for Ultralytics) before scaling."
    is_grave = False


class PaddingPlace(_Step):
    """The image stands elsewhere in the padding."""

    id = "padding-place"
    title = "Padding in another place"
    what = "The other program puts the image elsewhere in the padding than training did."
    remedy = "Put the same padding on both sides, the odd pixel at the right and the bottom, or as the card's fit says."
    is_grave = False


class InterpolationDiffers(_Step):
    """Pixels were interpolated otherwise when resizing."""

    id = "interpolation-differs"
    title = "Another interpolation"
    what = "The other program resizes with another interpolation than the model was trained with."
    remedy = "Resize with cv2.INTER_LINEAR, or as the card's fit says; Pillow smooths when it makes images smaller."
    is_grave = False


class RoundingDiffers(_Step):
    """The resized image is a pixel larger or smaller."""

    id = "rounding-differs"
    title = "Sides rounded otherwise"
    what = "The other program rounds the sides of the resized image otherwise."
    remedy = "Round sides to the nearest pixel, not down or up."
    is_grave = False


class SizeWrong(_Step):
    """The tensor has another size than the model takes."""

    id = "size-wrong"
    title = "Another size"
    what = "The other program feeds another image size than the model was measured at."
    remedy = "Resize to the card's size, or build a variant of that size and measure it: shipsight build --imgsz."
    is_grave = False


class RectangularLetterbox(_Step):
    """The padding reaches only to the next multiple of the stride: the tensor is a rectangle (rule P1)."""

    id = "rectangular-letterbox"
    title = "Least padding"
    what = "The other program pads only to the next multiple of the stride: its input is a rectangle, the model's is square."
    remedy = "Pad to the card's whole size (rect=False in Ultralytics), or build a variant of that rectangle."
    is_grave = False


class OrientationIgnored(_Step):
    """The file's orientation was not looked at."""

    id = "orientation-ignored-by-pipeline"
    title = "EXIF orientation not looked at"
    what = "The other program does not turn images as their files say: they lie on their side."
    remedy = (
        "Turn after decoding: ImageOps.exif_transpose in Pillow; cv2.imread does it by itself, cv2.imdecode as well."
    )


class Mirrored(_Step):
    """Left and right are exchanged."""

    id = "mirrored"
    title = "Mirrored"
    what = "The other program feeds images mirrored."
    remedy = "Leave out the flip: previews of front cameras and augmentations of training mirror."


class LayoutSwapped(_Step):
    """The axes stand in another order, or memory of one order was read as the other."""

    id = "layout-swapped"
    title = "Axes in another order"
    what = "The other program's tensor has its axes in another order than the model takes."
    remedy = (
        "Move axes, do not reshape: image.transpose(2, 0, 1) makes NCHW of an image, image.reshape(...) makes noise."
    )


class OtherImage(_Step):
    """The tensor or the predictions are not of the image that was named."""

    id = "other-image"
    title = "Another image"
    what = "What was recorded is not of the image that was given with it."
    remedy = (
        "Give the image itself with --images; see that the program does not mix up images when it works on several."
    )


class BoxesNotMappedBack(_Step):
    """Boxes stand in the pixels of the model's input."""

    id = "boxes-not-mapped-back"
    title = "Boxes in the model's pixels"
    what = "The other program tells boxes in the pixels of the model's input: the letterbox was not undone."
    remedy = "Take the padding off each corner, then divide by the scale, then clip to the image."


class BoxFormatWrong(_Step):
    """Boxes are written in another form than they are read in."""

    id = "box-format-wrong"
    title = "Another form of boxes"
    what = "The other program writes boxes in another form than they are read in."
    remedy = "Write x0, y0, x1, y1 in pixels of the original image, as docs/formats/predictions.md has it."


class ClassOrderWrong(_Step):
    """Objects are found where they are and called something else, each class consistently."""

    id = "class-order-wrong"
    title = "Classes counted otherwise"
    what = "The other program finds the objects and calls them by other classes: its list of names stands in another order."
    remedy = "Use the class names in the order of the card, counted from 0: shipsight inspect BUNDLE --json."


class NoSuppression(_Step):
    """Boxes that overlap were not suppressed."""

    id = "no-suppression"
    title = "No suppression"
    what = "The other program does not suppress boxes that overlap: objects are told many times."
    remedy = "Suppress by class above an overlap of 0.7, or export the model with suppression inside."


class ScoresWrong(_Step):
    """Scores went through another function."""

    id = "scores-wrong"
    title = "Scores through another function"
    what = "The other program's scores went through another function than the model's."
    remedy = "Take the scores as they leave the model: the exported graph has the sigmoid inside."


class PreprocessingUnexplained(Rule[PreprocessingEvidence]):
    """Something differs and no chain of known steps explains it: from what the best chain leaves."""

    id = "preprocessing-unexplained"
    title = "A difference without an explanation"

    def look(self, evidence: PreprocessingEvidence) -> Iterable[Finding]:
        """Returns the finding where too much is left."""
        rest = evidence.residual
        if rest.is_explained or any(one.rule == "other-image" for one in evidence.differences):
            return
        named = ", ".join(one.rule for one in evidence.differences) or "nothing"
        left = (
            f"{rest.mean:.1f} levels of 255 on average and {rest.high:.0f} at the 99th percentile are left"
            if evidence.is_tensor
            else f"{rest.mean:.0%} of the answers disagree"
        )
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="What the other program does differs by more than the known steps explain.",
            evidence=f"With {named} put right {left} ({rest.before:.2f} with nothing put right); images: {evidence.images}.",
            remedy="Record the program stage by stage and give the folder with --stages: the first stage that differs is named.",
            weight=0.0 if evidence.is_tensor else rest.mean,
            figures={
                "images": evidence.images,
                "residual": rest.mean,
                "residual_before": rest.before,
                "residual_high": rest.high,
            },
            pictures=evidence.pictures,
        )


RULES: tuple[Rule[PreprocessingEvidence], ...] = (
    LayoutSwapped(),
    SizeWrong(),
    RectangularLetterbox(),
    OrientationIgnored(),
    Mirrored(),
    ChannelsSwapped(),
    GreyInput(),
    GammaDiffers(),
    VideoRange(),
    ScaleMissing(),
    ScaleTwice(),
    NormalizedImagenet(),
    RangeMinusOne(),
    ValuesDiffer(),
    Stretched(),
    Cropped(),
    LetterboxAdded(),
    PaddingValue(),
    PaddingPlace(),
    InterpolationDiffers(),
    RoundingDiffers(),
    OtherImage(),
    BoxesNotMappedBack(),
    BoxFormatWrong(),
    ClassOrderWrong(),
    NoSuppression(),
    ScoresWrong(),
    PreprocessingUnexplained(),
)
