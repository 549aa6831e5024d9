from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("store", "0006_order_reference_unique")]
    operations = [
        migrations.AddField("country", "continent", models.CharField(max_length=2, default="")),
    ]
