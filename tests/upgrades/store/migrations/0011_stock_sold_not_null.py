from django.db import migrations, models

from once.operations import RunRoutine


class Migration(migrations.Migration):
    dependencies = [("store", "0010_stock")]
    operations = [
        RunRoutine("store.count_sold"),
        migrations.AlterField("stock", "sold", models.IntegerField()),
        # Undone, it comes back as old code may leave it.
        migrations.AlterField("product", "name", models.CharField(max_length=50, default="")),
        migrations.RemoveField("product", "name"),
    ]
