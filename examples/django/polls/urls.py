"""Routes."""

from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("questions", csrf_exempt(views.ask), name="ask"),
    path("questions/<int:number>/", views.detail, name="detail"),
    path("questions/<int:number>/vote", csrf_exempt(views.vote), name="vote"),
    path("questions/<int:number>/close", views.close, name="close"),
]
