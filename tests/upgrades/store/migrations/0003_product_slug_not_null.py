from django.db import migrations, models

from once.operations import RunRoutine


class Migration(migrations.Migration):
    dependencies = [("store", "0002_product_slug")]
    operations = [
        RunRoutine("store.fill_slugs"),
        migrations.AlterField("product", "slug", models.CharField(max_length=50)),
    ]
