"""The tables."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """The first."""

    initial = True

    operations = [
        migrations.CreateModel(
            "Question",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("text", models.CharField(max_length=200)),
                ("asked", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            "Choice",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("text", models.CharField(max_length=200)),
                ("votes", models.IntegerField(default=0)),
                ("question", models.ForeignKey("polls.question", on_delete=django.db.models.deletion.CASCADE)),
            ],
        ),
    ]
