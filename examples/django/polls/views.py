"""Pages."""

import logging

from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from .models import Choice, Question

log = logging.getLogger("polls")


def index(request: HttpRequest) -> HttpResponse:
    """List the newest questions."""
    return render(request, "index.html", {"questions": Question.objects.order_by("-asked")[:20]})


def detail(request: HttpRequest, number: int) -> HttpResponse:
    """Show one question with its answers."""
    return render(request, "detail.html", {"question": get_object_or_404(Question, pk=number)})


@require_POST
def ask(request: HttpRequest) -> HttpResponse:
    """Ask a question."""
    question = Question.objects.create(text=request.POST["text"])
    Choice.objects.bulk_create(Choice(question=question, text=text) for text in request.POST.getlist("choice"))
    log.info("question %d is asked", question.pk)
    return redirect("detail", number=question.pk)


@require_POST
def vote(request: HttpRequest, number: int) -> HttpResponse:
    """Count a vote."""
    choice = get_object_or_404(Choice, question_id=number, pk=request.POST["choice"])
    Choice.objects.filter(pk=choice.pk).update(votes=F("votes") + 1)
    return redirect("detail", number=number)


async def close(request: HttpRequest, number: int) -> HttpResponse:
    """Fail: a question cannot be closed yet."""
    raise NotImplementedError(f"question {number} cannot be closed")
