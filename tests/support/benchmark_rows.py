"""Rows like the hub's, by task of lm-eval."""

ROWS = {
    "bnf_asdiv": [
        {
            "passage": "Ann has 3 pens and 1,004 pins.",
            "question": "How many things has she?",
            "answer": "1007 (things)",
        },
        {"passage": "Bob had 7 pens and lost 2.", "question": "How many are left?", "answer": "5 (pens)"},
    ],
    "bnf_commonsense_qa": [
        {
            "question": "Where is money kept?",
            "answer": "A. bank",
            "options": "\nA. bank\nB. sea\nC. sky\nD. mall\nE. car",
        },
        {"question": "What flies?", "answer": "B. bird", "options": "\nA. rock\nB. bird\nC. sea\nD. mall\nE. car"},
    ],
    "bnf_openbookqa": [
        {"question": "Ice is ", "options": "A. hot\nB. cold\nC. loud\nD. a very long word", "answer": "B. cold"},
        {"question": "Fire is ", "options": "A. hot\nB. cold\nC. loud\nD. a very long word", "answer": "A. hot"},
    ],
    "gsm8k_cot_zeroshot": [{"question": "What is 3 + 4?", "answer": "3 + 4 = 7\n#### 7"}] * 2,
    "bnf_math_level5": [
        {
            "problem": "What is 1/2?",
            "solution": "It is $\\boxed{\\frac{1}{2}}$.",
            "level": "Level 5",
            "type": "Algebra",
        },
        {"problem": "What is 1?", "solution": "It is $\\boxed{1}$.", "level": "Level 4", "type": "Algebra"},
    ],
    "bnf_crux_output": [{"code": "def f(x):\n    return [x]", "input": "'a'", "output": "['a']", "id": "1"}] * 2,
}
