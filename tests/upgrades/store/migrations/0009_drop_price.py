from django.db import migrations, models

from once.operations import RunRoutine


class Migration(migrations.Migration):
    dependencies = [("store", "0008_product_cents")]
    operations = [
        RunRoutine("store.add_cents"),
        migrations.AddConstraint(
            "product",
            models.CheckConstraint(condition=models.Q(cents__gt=0), name="store_product_costs"),
        ),
        migrations.AlterField("product", "price", models.CharField(max_length=20, default="")),
        migrations.RemoveField("product", "price"),
    ]
