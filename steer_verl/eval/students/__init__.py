"""Who is evaluated: a model at an endpoint, a folder served by vLLM, a verl checkpoint, the laboratory's student."""

from steer_verl.eval.students.build import build_student, student_label
from steer_verl.eval.students.protocol import Messages, Reply, Student

__all__ = ["Messages", "Reply", "Student", "build_student", "student_label"]
