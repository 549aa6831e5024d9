from django.db import migrations, models

from once.operations import RunRoutine


class Migration(migrations.Migration):
    dependencies = [("store", "0005_drop_customer_name")]
    operations = [
        RunRoutine("store.tell_orders_apart"),
        migrations.AlterField("order", "reference", models.CharField(max_length=50, unique=True)),
    ]
