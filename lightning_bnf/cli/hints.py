"""From what users of other trainers type to this package's settings: told as a hint, never set in silence."""

from typing import NamedTuple

_MEANS = {
    "model.optimization.learning_rate": "lr learning_rate optimizer.lr optim.lr",
    "model.optimization.schedule": "lr_scheduler lr_scheduler_type scheduler",
    "model.optimization.warmup_ratio": "warmup warmup_steps warmup_ratio num_warmup_steps",
    "model.optimization.max_grad_norm": "max_grad_norm grad_clip gradient_clip_val gradient_clipping clip_grad_norm",
    "model.optimization.weight_decay": "weight_decay wd",
    "model.optimizer": "optim optimizer optimizer_name",
    "model.source": "model name model_name model_id model_path model_name_or_path base_model source pretrained "
    "policy.source policy.model policy.name",
    "model.policy": "policy use_peft peft peft_config lora use_lora qlora load_in_4bit finetuning_type adapter_type",
    "model.policy.init_args.r": "r rank lora_r lora_rank policy.r policy.rank",
    "model.policy.init_args.alpha": "alpha lora_alpha policy.alpha",
    "model.policy.init_args.dropout": "dropout lora_dropout policy.dropout",
    "model.policy.init_args.target_modules": "target_modules lora_target lora_target_modules policy.target_modules",
    "model.policy.init_args.dtype": "dtype torch_dtype model_dtype policy.dtype",
    "model.policy.init_args.attention": "attn attention attn_implementation flash_attention flash_attn",
    "model.policy.init_args.gradient_checkpointing": "gradient_checkpointing use_gradient_checkpointing "
    "activation_checkpointing policy.gradient_checkpointing",
    "model.loss": "loss loss_type rl pref_loss method algorithm",
    "model.loss.init_args.beta": "beta dpo_beta pref_beta loss.beta",
    "model.router_loss": "output_router_logits router_aux_loss_coef moe_aux_loss_coef aux_loss_coef",
    "model.reference": "reference ref_model reference_model ref_policy reference_free precompute_ref_log_probs",
    "data.train": "train train_file train_data train_dataset dataset datasets dataset_name data path file data_path "
    "data_files data_dir",
    "data.validation": "validation val val_file val_data eval_dataset eval_file dev validation_file val_set_size "
    "eval_split test_size val_size",
    "data.test": "test_file test_dataset",
    "data.examples_per_step": "batch_size bs global_batch_size per_device_train_batch_size train_batch_size "
    "micro_batch_size gradient_accumulation_steps accumulate_grad_batches accum_steps",
    "data.options.max_length": "max_length max_len max_seq_length seq_len sequence_len cutoff_len model_max_length",
    "data.options.max_prompt_length": "max_prompt_length max_prompt_len",
    "trainer.max_epochs": "epochs epoch num_epochs num_train_epochs n_epochs",
    "trainer.max_steps": "max_steps steps num_steps max_train_steps",
    "trainer.precision": "bf16 fp16 tf32 precision mixed_precision amp half",
    "trainer.accelerator": "device accelerator gpu cuda cpu use_cpu no_cuda",
    "trainer.devices": "devices gpus num_gpus n_gpu nproc_per_node",
    "trainer.strategy": "strategy fsdp deepspeed ddp",
    "trainer.default_root_dir": "output output_dir out out_dir save_dir run_dir folder log_dir logging_dir",
    "trainer.val_check_interval": "eval_steps eval_interval evals_per_epoch eval_strategy evaluation_strategy",
    "trainer.log_every_n_steps": "logging_steps log_steps log_every log_interval",
    "trainer.logger": "report_to logger wandb tensorboard use_wandb",
    "seed_everything": "seed random_seed",
    "ckpt_path": "resume resume_from_checkpoint checkpoint ckpt",
    "model.generation.temperature": "temperature",
    "model.generation.max_new_tokens": "max_new_tokens",
}
"""Our setting -> what it is called elsewhere. The words of a command's own groups (model, data, trainer) before it, and
its case and dashes, make no difference."""

_OURS = {word: setting for setting, words in _MEANS.items() for word in words.split()}

_NOTES = {
    "gradient_accumulation_steps": "a step has that many rows, whatever fits into memory at once",
    "accumulate_grad_batches": "a step has that many rows, whatever fits into memory at once",
    "per_device_train_batch_size": "it counts the rows of a whole step, on all devices",
    "micro_batch_size": "it counts the rows of a whole step; what is computed at once is data.max_tokens",
    "warmup_steps": "a share of all steps",
    "num_warmup_steps": "a share of all steps",
    "bf16": "bf16-mixed or bf16-true",
    "fp16": "bf16-mixed is accepted, 16-mixed is not",
    "fsdp": "fsdp2",
    "deepspeed": "fsdp2 shards weights, gradients and moments too",
    "reference_free": "none, with a loss that needs no reference, such as simpo",
    "precompute_ref_log_probs": "cache: they are stored before the first step, and for later runs",
    "lora": "--model.policy lora",
    "use_lora": "--model.policy lora",
    "use_peft": "--model.policy lora",
    "qlora": "--model.policy qlora",
    "load_in_4bit": "--model.policy qlora",
    "resume": "--ckpt_path last",
    "resume_from_checkpoint": "--ckpt_path last",
    "val_set_size": "auto holds out 5 % of the training rows",
    "val_size": "auto holds out 5 % of the training rows",
    "test_size": "auto holds out 5 % of the training rows",
}
"""Where a name alone would mislead: what the setting takes."""


class Meaning(NamedTuple):
    """A setting of ours, and what is to be said of its values; "" for nothing."""

    setting: str
    note: str = ""


def meant(key: str) -> Meaning | None:
    """What an unknown `key` stands for elsewhere: the whole of it, without its group, or its last word.

    >>> meant("trainer.epochs").setting
    'trainer.max_epochs'
    """
    plain = key.lower().replace("-", "_")
    for word in (plain, plain.partition(".")[2], plain.rpartition(".")[2]):
        if word in _OURS and _OURS[word] != plain:
            return Meaning(_OURS[word], _NOTES.get(word, ""))
    return None
