# The policy that comes with nanoPilot, fine-tuned to a room or to words of your own: edit a copy of scene.json.
# $ python prepare.py --size=0.3 --env_kwargs='{"scene": "my_room.json"}' --tokenizer_of=data/toy_nav/policy \
#       --out_dir=p_room
# $ python train.py config/finetune_toy_nav.py --data_dir=p_room
# 16 minutes on 2 cores without bfloat16: 0.9 s a step
from pathlib import Path as _Path

out_dir = 'out-toy-nav-finetuned'
init_from = str(_Path(__file__).parents[1] / 'data' / 'toy_nav' / 'policy')
n_layer = 5
n_head = 7
n_embd = 224
say_len = 64
more_texts = 32
batch_size = 32
learning_rate = 8e-4
warmup_iters = 100
max_iters = 1000
eval_interval = 250
