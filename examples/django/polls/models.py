"""Questions, and what may be answered."""

from django.db import models


class Question(models.Model):
    """What is asked."""

    text = models.CharField(max_length=200)
    asked = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.text

    def votes(self) -> int:
        """Return how many have answered, by a statement for each question."""
        return sum(choice.votes for choice in self.choice_set.all())


class Choice(models.Model):
    """One answer."""

    question = models.ForeignKey(Question, on_delete=models.CASCADE)
    text = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.text
