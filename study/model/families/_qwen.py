"""What the processors of Qwen2-VL and Qwen2.5-VL share."""

from __future__ import annotations

from typing import Any

from transformers.processing_utils import ProcessorMixin


class WithoutVideos:
    """The initializer of a Qwen processor that has no videos: the stock one cannot be made without torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)  # type: ignore[arg-type]
