from django.db import migrations, models

from once.operations import RunRoutine


class Migration(migrations.Migration):
    dependencies = [("store", "0004_customer")]
    operations = [
        RunRoutine("store.link_customers"),
        migrations.AlterField(
            "order", "customer", models.ForeignKey("store.Customer", models.CASCADE)
        ),
        # Undone, it comes back as old code may leave it.
        migrations.AlterField(
            "order", "customer_name", models.CharField(max_length=50, default="")
        ),
        migrations.RemoveField("order", "customer_name"),
    ]
