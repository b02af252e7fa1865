"""A chat template in Jinja for a template that exists only as code here.

transformers, llama.cpp and others read it from the tokenizer or the GGUF file. Text stands in it as quoted
strings, so that no white space depends on Jinja's rules.
"""

import json

from lora_kit.export.turns import Turns

_FORM = """\
{{%- for message in messages -%}}
{{%- if message['role'] == 'system' -%}}
{{{{ {system} + {content} }}}}
{{%- elif message['role'] == 'user' -%}}
{{%- if loop.index0 == 0 -%}}
{{{{ {first} }}}}
{{%- elif loop.index0 == 1 and messages[0]['role'] == 'system' -%}}
{{{{ {after_system} }}}}
{{%- else -%}}
{{{{ {between} }}}}
{{%- endif -%}}
{{{{ {content} }}}}
{{%- if not loop.last or add_generation_prompt -%}}
{{{{ {prompt} }}}}
{{%- endif -%}}
{{%- else -%}}
{{{{ {lead} + {content} }}}}
{{%- if loop.last -%}}
{{{{ {end} }}}}
{{%- endif -%}}
{{%- endif -%}}
{{%- endfor -%}}
"""


def jinja_source(turns: Turns) -> str:
    """Write the template."""
    texts = ("system", "first", "after_system", "prompt", "lead", "between", "end")
    content = "(message['content'] | trim)" if turns.trims else "message['content']"
    return _FORM.format(
        content=content, **{name: json.dumps(getattr(turns, name), ensure_ascii=False) for name in texts}
    )
