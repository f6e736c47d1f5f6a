"""Models: a file for each provider, behind the small protocol ``Model``, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.lazily import lazily
from orchestrator.models.asked import Asked
from orchestrator.models.chat_request import REMOVE_PARAMETER
from orchestrator.models.deltas import Joined, joined
from orchestrator.models.model import (
    ChatMessage,
    ChatToolCall,
    Model,
    ModelDelta,
    ModelReply,
    StreamingModel,
    TokenUsage,
    ToolCallDelta,
    ToolSchema,
)
from orchestrator.models.retry import RetryPolicy
from orchestrator.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from orchestrator.models.azure import AzureOpenAIModel, AzureOpenAIServerModel
    from orchestrator.models.bedrock import AmazonBedrockModel, AmazonBedrockServerModel
    from orchestrator.models.inference_client import HfApiModel, InferenceClientModel
    from orchestrator.models.litellm import LiteLLMModel, LiteLLMRouterModel
    from orchestrator.models.mlx import MLXModel
    from orchestrator.models.openai import OpenAIModel, OpenAIServerModel
    from orchestrator.models.transformers import TransformersModel
    from orchestrator.models.vllm import VLLMModel

__all__ = [
    "REMOVE_PARAMETER",
    "AmazonBedrockModel",
    "AmazonBedrockServerModel",
    "Asked",
    "AzureOpenAIModel",
    "AzureOpenAIServerModel",
    "ChatMessage",
    "ChatToolCall",
    "HfApiModel",
    "InferenceClientModel",
    "Joined",
    "LiteLLMModel",
    "LiteLLMRouterModel",
    "MLXModel",
    "Model",
    "ModelDelta",
    "ModelReply",
    "OpenAIModel",
    "OpenAIServerModel",
    "RetryPolicy",
    "ScriptedModel",
    "StreamingModel",
    "TokenUsage",
    "ToolCallDelta",
    "ToolSchema",
    "TransformersModel",
    "VLLMModel",
    "joined",
]

# The openai package takes longer to import than a sandbox takes to start; who does not use it does not wait.
_LAZY = {
    "AmazonBedrockModel": "bedrock",
    "AmazonBedrockServerModel": "bedrock",
    "AzureOpenAIModel": "azure",
    "AzureOpenAIServerModel": "azure",
    "HfApiModel": "inference_client",
    "InferenceClientModel": "inference_client",
    "LiteLLMModel": "litellm",
    "LiteLLMRouterModel": "litellm",
    "OpenAIModel": "openai",
    "MLXModel": "mlx",
    "OpenAIServerModel": "openai",
    "TransformersModel": "transformers",
    "VLLMModel": "vllm",
}

__getattr__ = lazily(__name__, _LAZY)
