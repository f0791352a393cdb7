ARMS = ("base", "sft", "grpo")


def write(lab, folder):
    return []
