"""The demo world: a small social network whose right answer is known, as input files of fusefeed.

Six topics (`TOPICS`), ten languages, 600 posts by 50 authors, 200 users. A post is about one topic; its words,
hashtags, emoji, pictures, clips and tones go with it. A user likes one or two topics and mostly (90 %) meets posts of
these, of two topics three times as many of the one (`DemoWorld.main_tastes`) as of the other.

The right answer is: **a user gets unseen posts of the user's own topics** (`DemoWorld.user_tastes`,
`DemoWorld.post_topics`); by chance it would be one in six for a user of one topic, one in three for a user of two.
Users of whom only interests are known get their topics too, users without anything known (no tastes) get popular
posts, and users that only appear in interactions get recommendations like all others. Nobody gets pure reposts or
sensitive posts. Posts similar to a post are posts of its topic; posts with nothing in them have only their
interactions to go by.

And everything that is wrong is wrong on purpose: `DemoWorld.inputs` counts, per input, rows, rejects by code,
duplicates and unknown fields, `DemoWorld.broken_media` names each bad media entry with the code it must be rejected
with. The same arguments (and versions of numpy, OpenCV and PyAV) give the same files, byte for byte.
"""

from pipelines.demo_world.words import LANGUAGES, TOPICS
from pipelines.demo_world.world import DemoWorld, InputTruth, make_world

__all__ = ["LANGUAGES", "TOPICS", "DemoWorld", "InputTruth", "make_world"]
