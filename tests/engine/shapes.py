"""Eight chat templates, each in the manner of a family, with a tokenizer that knows the control tokens of all of them.

They are written for these tests and shorter than the families' own, but do to a conversation what those do.
"""

# ruff: noqa: RUF001 (the signs are DeepSeek's own)

import functools
import json
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer

from anyclaude.engine.text.added_tokens import Table, added_tokens
from anyclaude.engine.text.probe import Shape, probe
from anyclaude.engine.text.template import Template
from anyclaude.engine.text.tokens import Vocabulary
from tests.support.tokenizer_files import trained_tokenizer

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>", "<|eom_id|>"),
    *("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"),
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    *("<|fim_prefix|>", "<|reserved_special_token_0|>", "<|reserved_special_token_10|>"),
)
MARKUP = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    *(
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
    ),
    *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)

CHATML = r"""
{%- if tools %}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}You help.{% endif %}


# Tools
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}
</tools>
Call one with <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% elif messages[0].role == 'system' %}
<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
  {%- if message.role == 'tool' %}
    {%- if loop.first or loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
  {%- elif message.role == 'assistant' %}
    {{- '<|im_start|>assistant\n' + message.content }}
    {%- for call in message.tool_calls or [] %}
      {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
      {{- (call.function.arguments | tojson) + '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif not (message.role == 'system' and loop.first) %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

QWEN3 = r"""
{%- if tools %}
  {{- '<|im_start|>system\n' }}
  {%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
  {{- '# Tools\n\n<tools>' }}
  {%- for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
  {{- '\n</tools>\n\nCall with <tool_call></tool_call>.<|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
  {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, query=messages|length - 1) %}
{%- for message in messages[::-1] %}
  {%- set index = (messages|length - 1) - loop.index0 %}
  {%- if ns.searching and message.role == 'user' and not (message.content.startswith('<tool_response>')
      and message.content.endswith('</tool_response>')) %}
    {%- set ns.searching = false %}{% set ns.query = index %}
  {%- endif %}
{%- endfor %}
{%- for message in messages %}
  {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
  {%- elif message.role == 'assistant' %}
    {%- set content = message.content %}{% set reasoning = '' %}
    {%- if message.reasoning_content is string %}
      {%- set reasoning = message.reasoning_content %}
    {%- elif '</think>' in content %}
      {%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
      {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\n' }}
    {%- if loop.index0 > ns.query and (loop.last or reasoning) %}
      {{- '<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' }}
      {%- set content = content.lstrip('\n') %}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls or [] %}
      {%- if not loop.first or content %}{{ '\n' }}{% endif %}
      {%- if call.function %}{% set call = call.function %}{% endif %}
      {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
      {%- if call.arguments is string %}{{ call.arguments }}{% else %}{{ call.arguments | tojson }}{% endif %}
      {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif message.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\n' }}
  {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}
"""

QWEN3_CODER = r"""
{%- macro extra(table, known) %}
  {%- for key in table | reject('in', known) %}
    {%- set value = table[key] | tojson if table[key] is mapping else table[key] | string %}
    {{- '\n<' ~ key ~ '>' ~ value ~ '</' ~ key ~ '>' }}
  {%- endfor %}
{%- endmacro %}
{%- if messages[0].role == 'system' %}
  {%- set system = messages[0].content %}{% set rest = messages[1:] %}
{%- else %}
  {%- set system = 'You are a coder.' %}{% set rest = messages %}
{%- endif %}
{{- '<|im_start|>system\n' + system }}
{%- if tools %}
  {{- '\n\n# Tools\n\n<tools>' }}
  {%- for tool in tools %}
    {%- set tool = tool.function %}
    {{- '\n<function>\n<name>' ~ tool.name ~ '</name>\n<description>' ~ (tool.description | trim) ~ '</description>' }}
    {{- '\n<parameters>' }}
    {%- for name, fields in tool.parameters.properties.items() %}
      {{- '\n<parameter>\n<name>' ~ name ~ '</name>' }}
      {%- if fields.type is defined %}{{ '\n<type>' ~ fields.type ~ '</type>' }}{% endif %}
      {{- '\n<description>' ~ (fields.description | default('') | trim) ~ '</description>' }}
      {{- extra(fields, ['type', 'description', 'name']) ~ '\n</parameter>' }}
    {%- endfor %}
    {{- extra(tool.parameters, ['type', 'properties']) ~ '\n</parameters>\n</function>' }}
  {%- endfor %}
  {{- '\n</tools>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- for message in rest %}
  {%- if message.role == 'assistant' and message.tool_calls %}
    {{- '<|im_start|>assistant' }}
    {%- if message.content %}{{ '\n' + message.content | trim + '\n' }}{% endif %}
    {%- for call in message.tool_calls %}
      {{- '\n<tool_call>\n<function=' + call.function.name + '>\n' }}
      {%- for name, value in call.function.arguments | items %}
        {{- '<parameter=' + name + '>\n' }}
        {{- value if value is string else value | tojson }}
        {{- '\n</parameter>\n' }}
      {%- endfor %}
      {{- '</function>\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif message.role == 'tool' %}
    {%- if loop.previtem and loop.previtem.role != 'tool' %}{{ '<|im_start|>user\n' }}{% endif %}
    {{- '<tool_response>\n' + message.content + '\n</tool_response>\n' }}
    {%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
  {%- else %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

LLAMA3 = r"""
{{- bos_token }}
{%- set day = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- if messages[0].role == 'system' %}
  {%- set system = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}
  {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{%- if tools %}{{ 'Environment: ipython\n' }}{% endif %}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' + day + '\n\n' }}
{%- if tools %}
  {{- 'Answer with {"name": ..., "parameters": ...} to call one of these:\n\n' }}
  {%- for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\n\n' }}{% endfor %}
{%- endif %}
{{- system + '<|eot_id|>' }}
{%- for message in messages %}
  {%- if message.tool_calls %}
    {%- if message.tool_calls | length != 1 %}{{ raise_exception('One tool call at once.') }}{% endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
    {{- (call.arguments | tojson) + '}<|eot_id|>' }}
  {%- elif message.role == 'tool' %}
    {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}
    {{- message.content | tojson if message.content is iterable else message.content }}
    {{- '<|eot_id|>' }}
  {%- else %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""

MISTRAL = r"""
{%- if messages[0].role == 'system' %}
  {%- set system = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}
  {%- set turns = messages %}
{%- endif %}
{%- set users = turns | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(count=0) %}
{%- for message in turns %}
  {%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}
    {%- if (message.role == 'user') != (ns.count % 2 == 0) %}
      {{- raise_exception('Roles must alternate user and assistant.') }}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
  {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- if system is defined %}{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{% endif %}
{%- for message in turns %}
  {%- if message.role == 'user' %}
    {%- if tools and message == users[-1] %}
      {{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {{- '[INST] ' + message.content + '[/INST]' }}
  {%- elif message.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in message.tool_calls %}
      {%- if call.id | length != 9 %}{{ raise_exception('Call ids are nine characters long.') }}{% endif %}
      {{- '{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson }}
      {{- ', "id": "' + call.id + '"}' + (']' if loop.last else ', ') }}
    {%- endfor %}
    {{- eos_token }}
  {%- elif message.role == 'assistant' %}
    {{- ' ' + message.content | trim + eos_token }}
  {%- elif message.role == 'tool' %}
    {%- if message.tool_call_id | length != 9 %}{{ raise_exception('Call ids are nine characters long.') }}{% endif %}
    {{- '[TOOL_RESULTS] {"content": ' + message.content | tojson + ', "call_id": "' + message.tool_call_id }}
    {{- '"}[/TOOL_RESULTS]' }}
  {%- else %}
    {{- raise_exception('Only one system message, at the start.') }}
  {%- endif %}
{%- endfor %}
"""

GLM4 = r"""
[gMASK]<sop>
{%- if tools %}
<|system|>
# Tools
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}
</tools>
{%- endif %}
{%- set ns = namespace(last_user=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}
<|user|>
{{ message.content }}
{{- '/nothink' if enable_thinking is defined and not enable_thinking and not message.content.endswith('/nothink') }}
{%- elif message.role == 'assistant' %}
<|assistant|>
{%- set reasoning = '' %}{% set content = message.content %}
{%- if message.reasoning_content is string %}{% set reasoning = message.reasoning_content %}
{%- elif '</think>' in content %}
  {%- set reasoning = content.split('</think>')[0].split('<think>')[-1] %}
  {%- set content = content.split('</think>')[-1] %}
{%- endif %}
{%- if loop.index0 > ns.last_user and reasoning %}
{{ '\n<think>' + reasoning.strip() + '</think>' }}
{%- else %}
{{ '\n<think></think>' }}
{%- endif %}
{%- if content.strip() %}{{ '\n' + content.strip() }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{ '\n<tool_call>' + call.function.name }}
{% for key, value in call.function.arguments.items() %}
<arg_key>{{ key }}</arg_key>
<arg_value>{{ value if value is string else value | tojson }}</arg_value>
{% endfor %}
</tool_call>
{%- endfor %}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|observation|>' }}{% endif %}
{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- elif message.role == 'system' %}
<|system|>
{{ message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|assistant|>{{- '\n<think></think>' if enable_thinking is defined and not enable_thinking else '' }}
{%- endif %}
"""

GPT_OSS = r"""
{%- macro fields(properties) %}
  {%- for name, spec in properties.items() %}
    {%- if spec.description %}{{ '// ' + spec.description + '\n' }}{% endif %}
    {{- name + ': ' + ('string' if spec.type == 'string' else 'any') + ',\n' }}
  {%- endfor %}
{%- endmacro %}
{{- '<|start|>system<|message|>You are a large language model.\nCurrent date: ' + strftime_now('%Y-%m-%d') }}
{{- '\n\n# Valid channels: analysis, commentary, final.<|end|>' }}
{%- if messages[0].role == 'system' %}
  {%- set developer = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}
  {%- set developer = '' %}{% set turns = messages %}
{%- endif %}
{%- if developer or tools %}
  {{- '<|start|>developer<|message|>' }}
  {%- if developer %}{{ '# Instructions\n\n' + developer + '\n\n' }}{% endif %}
  {%- if tools %}
    {{- '# Tools\n\nnamespace functions {\n' }}
    {%- for tool in tools %}
      {{- '// ' + tool.function.description + '\ntype ' + tool.function.name + ' = (_: {\n' }}
      {{- fields(tool.function.parameters.properties) + '}) => any;\n' }}
    {%- endfor %}
    {{- '}' }}
  {%- endif %}
  {{- '<|end|>' }}
{%- endif %}
{%- set ns = namespace(called='') %}
{%- for message in turns %}
  {%- if message.role == 'assistant' %}
    {%- if '<|channel|>analysis<|message|>' in message.content %}
      {{- raise_exception('Reasoning belongs in thinking.') }}
    {%- endif %}
    {%- if message.tool_calls %}
      {%- set later = namespace(final=false) %}
      {%- for other in turns[loop.index:] %}
        {%- if other.role == 'assistant' and not other.tool_calls %}{% set later.final = true %}{% endif %}
      {%- endfor %}
      {%- if message.content and message.thinking %}
        {{- raise_exception('Content and thinking cannot both stand beside a call.') }}
      {%- elif message.content %}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.content + '<|end|>' }}
      {%- elif message.thinking and not later.final %}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
      {%- endif %}
      {%- set call = message.tool_calls[0].function %}
      {{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
      {{- (call.arguments if call.arguments is string else call.arguments | tojson) + '<|call|>' }}
      {%- set ns.called = call.name %}
    {%- elif loop.last and not add_generation_prompt %}
      {%- if message.thinking %}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
      {%- endif %}
      {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}
    {%- else %}
      {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
    {%- endif %}
  {%- elif message.role == 'tool' %}
    {%- if not ns.called %}{{ raise_exception('A result without a call before it.') }}{% endif %}
    {{- '<|start|>functions.' + ns.called + ' to=assistant<|channel|>commentary<|message|>' }}
    {{- message.content | tojson + '<|end|>' }}
  {%- elif message.role == 'user' %}
    {{- '<|start|>user<|message|>' + message.content + '<|end|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}
"""

DEEPSEEK = r"""
{%- set ns = namespace(system='', is_first=true, after_tool=false, after_user=false, in_call=false) %}
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {%- if ns.is_first %}{% set ns.system = message.content %}{% set ns.is_first = false %}
    {%- else %}{% set ns.system = ns.system + '\n\n' + message.content %}{% endif %}
  {%- endif %}
{%- endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
  {%- if message.role == 'user' %}
    {%- set ns.after_tool = false %}{% set ns.after_user = true %}
    {{- '<｜User｜>' + message.content }}
  {%- elif message.role == 'assistant' %}
    {%- if ns.after_user %}{{ '<｜Assistant｜></think>' }}{% endif %}
    {%- set ns.after_user = false %}{% set ns.after_tool = false %}
    {{- message.content.split('</think>', 1)[1] if '</think>' in message.content else message.content }}
    {%- if message.tool_calls %}
      {%- for call in message.tool_calls %}
        {%- if loop.first %}{{ '<｜tool▁calls▁begin｜>' }}{% endif %}
        {{- '<｜tool▁call▁begin｜>' + call.function.name + '<｜tool▁sep｜>' + call.function.arguments }}
        {{- '<｜tool▁call▁end｜>' }}
      {%- endfor %}
      {{- '<｜tool▁calls▁end｜>' }}
    {%- endif %}
    {{- eos_token }}
  {%- elif message.role == 'tool' %}
    {%- set ns.after_tool = true %}{% set ns.after_user = false %}
    {{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and ns.after_user and not ns.after_tool %}
  {{- '<｜Assistant｜>' + ('<think>' if enable_thinking is defined and enable_thinking else '</think>') }}
{%- endif %}
"""


@dataclass(frozen=True)
class Family:
    template: str
    bos: str
    eos: str
    ends: tuple[str, ...]


FAMILIES = {
    "chatml": Family(CHATML, "", "<|im_end|>", ("<|im_end|>", "<|endoftext|>")),
    "qwen3": Family(QWEN3, "", "<|im_end|>", ("<|im_end|>", "<|endoftext|>")),
    "qwen3-coder": Family(QWEN3_CODER, "", "<|im_end|>", ("<|im_end|>", "<|endoftext|>")),
    "llama3": Family(LLAMA3, "<|begin_of_text|>", "<|eot_id|>", ("<|eot_id|>", "<|eom_id|>")),
    "mistral": Family(MISTRAL, "<s>", "</s>", ("</s>",)),
    "glm4": Family(GLM4, "", "<|endoftext|>", ("<|endoftext|>", "<|user|>", "<|observation|>")),
    "gpt-oss": Family(GPT_OSS, "", "<|return|>", ("<|return|>", "<|call|>", "<|endoftext|>")),
    "deepseek": Family(DEEPSEEK, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ("<｜end▁of▁sentence｜>",)),
}


@dataclass(frozen=True)
class Model:
    vocabulary: Vocabulary
    template: Template
    shape: Shape


@functools.cache
def tokenizer_json() -> str:
    tokenizer = Tokenizer.from_str(trained_tokenizer(4_096))
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in MARKUP])
    return tokenizer.to_str()


@functools.cache
def vocabulary_of(family: str) -> Vocabulary:
    table: Table = json.loads(tokenizer_json())
    known = FAMILIES[family]
    config: Table = {"bos_token": known.bos or None, "eos_token": known.eos}
    tokens = added_tokens(table, config)
    ids = {token.text: token.id for token in tokens}
    return Vocabulary(table, tokens, config, frozenset(ids[text] for text in known.ends))


@functools.cache
def model(family: str) -> Model:
    vocabulary = vocabulary_of(family)
    template = Template({"default": FAMILIES[family].template}, vocabulary)
    return Model(vocabulary, template, probe(template, vocabulary))
